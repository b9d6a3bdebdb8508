#!/bin/sh
# The evaluator's entrypoint: puts what was compiled with the image where it can be used, and becomes the evaluator.
# numba takes no cache that it cannot write to, and uses of one only what was compiled for this kind of processor.
set -eu
if [ -d /opt/altlas/numba ] && [ ! -d "$NUMBA_CACHE_DIR" ]; then
  cp -R /opt/altlas/numba "$NUMBA_CACHE_DIR" || echo "start-evaluator: brainf's interpreter is compiled anew" >&2
fi
exec altlas serve evaluator "$@"
