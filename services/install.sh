#!/bin/sh
# Installs altlas into /opt/altlas: what the four Dockerfiles have in common. Run in /source.
#   install.sh dependencies [EXTRA...]   what pyproject.toml asks for; of the extras named as well
#   install.sh altlas                    altlas itself, and then pip goes: nothing is installed later
set -eu

# torch of an index of its own, in the version of constraints.txt whatever build of it that index has.
install_torch() {
  grep '^torch==' constraints.txt >torch.txt
  /opt/altlas/bin/pip install --constraint constraints.txt --extra-index-url "$TORCH_INDEX_URL" --requirement torch.txt
}

case $1 in
  dependencies)
    shift
    python3 -m venv /opt/altlas
    python3 - "$@" >requirements.txt <<'END'
import sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = [line for name in sys.argv[1:] for line in project["optional-dependencies"][name]]
print(*project["dependencies"], *extras, sep="\n")
END
    if [ -n "${TORCH_INDEX_URL:-}" ]; then install_torch; fi
    /opt/altlas/bin/pip install --constraint constraints.txt --requirement requirements.txt
    ;;
  altlas)
    /opt/altlas/bin/pip install --no-deps .
    /opt/altlas/bin/pip uninstall --yes pip setuptools
    ;;
esac
