#!/bin/sh
# Reads secrets from files (NAME_FILE=/run/secrets/name) into the environment of the command, so
# that they stand neither in the image, nor in the compose file, nor on a command line.
set -eu

for name in ORCHESTRATE_BROKER_URL ORCHESTRATE_BROKER_PASSWORD ORCHESTRATE_JUDGE_API_KEY \
    ORCHESTRATE_JUDGE_SERVER_KEY ORCHESTRATE_FLOWER_AUTH HF_TOKEN; do
    file=$(printenv "${name}_FILE" || true)
    if [ -z "$file" ]; then
        continue
    fi
    if [ ! -r "$file" ]; then
        echo "${name}_FILE names $file, which cannot be read: mount the secret there" >&2
        exit 2
    fi
    value=$(cat "$file")
    # an empty file is a secret that this fleet does not use
    if [ -n "$value" ]; then
        export "$name=$value"
    fi
done

if [ -z "${ORCHESTRATE_BROKER_URL:-}" ] && [ -n "${ORCHESTRATE_BROKER_HOST:-}" ]; then
    password=$(printenv ORCHESTRATE_BROKER_PASSWORD | python3 -c \
        'import sys, urllib.parse; print(urllib.parse.quote(sys.stdin.read().strip(), safe=""))')
    ORCHESTRATE_BROKER_URL="redis://${ORCHESTRATE_BROKER_USER:-}:${password}@${ORCHESTRATE_BROKER_HOST}:${ORCHESTRATE_BROKER_PORT:-6379}/0"
    export ORCHESTRATE_BROKER_URL
fi

exec "$@"
