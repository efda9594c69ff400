#!/bin/sh
# Writes Redis' ACL file to standard output. Passwords come from files and leave as SHA-256 only:
#
#   head -c 24 /dev/urandom | base64 | tr -d '/+=\n' > orchestrator.secret   # and worker.secret, admin.secret
#   ./make-acl.sh > /etc/redis/users.acl
#   # redis.conf: aclfile /etc/redis/users.acl
#
# admin         everything; for people, not for programs
# orchestrator  extract, status, cancel, retry, Flower
# worker        gpu, judge and reduce workers
#
# Both program users reach the queues' keys and nothing else of the server: no CONFIG, FLUSHALL,
# FLUSHDB, SHUTDOWN, KEYS, DEBUG, SAVE, REPLICAOF, ACL, MONITOR, CLIENT KILL.
set -eu
cd "${SECRETS:-.}"

hash() { tr -d '\n' < "$1.secret" | sha256sum | cut -d' ' -f1; }

# what kombu and celery name their keys, and our own below orchestrate:
KEYS='~gpu* ~judge* ~reduce* ~unacked* ~_kombu.* ~*.reply.celery.pidbox* ~orchestrate:*'
# events for Flower, and remote control; channels of database 0. A subscription to a pattern is
# allowed only where that pattern itself stands here.
CHANNELS='&/0.celery.pidbox &/0.celeryev/* &/0.celeryev/worker.*'
# only forms that Redis 6.2 knows as well; CONFIG stays shut, it would show the passwords
COMMANDS='-@all +@connection +@read +@write +@transaction +@pubsub
  -@dangerous -@admin -keys -client
  +client|setinfo +client|setname +client|id
  +eval +evalsha +script|load +script|exists +info +time'

printf 'user default off\n'
printf 'user admin on #%s ~* &* +@all\n' "$(hash admin)"
for name in orchestrator worker; do
  printf 'user %s on #%s resetchannels %s %s %s\n' \
    "$name" "$(hash "$name")" "$KEYS" "$CHANNELS" "$(echo $COMMANDS)"
done
