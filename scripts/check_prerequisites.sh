#!/bin/sh
# Say what the machine lacks before anything is installed. Usage: check_prerequisites.sh [PYTHON]

python=${1:-python3}
status=0

for tool in g++ make perl; do
    if ! command -v "$tool" >/dev/null; then
        echo "error: '$tool' not found; Verilator needs it (Debian: apt install g++ make perl)" >&2
        status=1
    fi
done

if ! command -v "$python" >/dev/null; then
    echo "error: '$python' not found; Python 3.11 or newer is needed (make PYTHON=/path/to/python3)" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: '$python' is $("$python" -V 2>&1); 3.11 or newer is needed (make PYTHON=/path/to/python3)" >&2
    status=1
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "error: '$python' has no venv module (Debian: apt install python3-venv)" >&2
    status=1
fi

exit $status
