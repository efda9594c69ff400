# Sourced by the job scripts: settings and secrets from files that only you can read.
# shellcheck shell=bash
folder=${ORCHESTRATE_HOME:-$HOME/.config/orchestrate}
for file in "$folder/orchestrate.env" "$folder/broker.env"; do
    if [[ ! -f $file ]]; then
        continue
    fi
    if [[ $(stat --format=%a "$file") != *00 ]]; then
        echo "$file holds secrets and others can read it: chmod 600 $file" >&2
        exit 1
    fi
    set -a
    # shellcheck source=/dev/null
    source "$file"
    set +a
done
if [[ -z ${ORCHESTRATE_BROKER_URL:-} ]]; then
    echo "no broker: set ORCHESTRATE_BROKER_URL in $folder/orchestrate.env, or submit broker.sbatch" >&2
    exit 1
fi
# the environment that has orchestrate: a virtual environment on the shared file system
if [[ -n ${ORCHESTRATE_VENV:-} ]]; then
    PATH=$ORCHESTRATE_VENV/bin:$PATH
fi
