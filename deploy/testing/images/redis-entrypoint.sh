#!/bin/sh
# What the original does: as root, hand /data to the user redis and go on as that user.
set -e
[ "${1#-}" = "$1" ] && [ "${1%.conf}" = "$1" ] || set -- redis-server "$@"
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
  find . \! -user redis -exec chown redis '{}' +
  exec setpriv --reuid=redis --regid=redis --clear-groups "$0" "$@"
fi
exec "$@"
