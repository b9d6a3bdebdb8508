# make-secrets.sh USERS SECRETS: makes what is secret, in SECRETS a directory for each role that gets some, and of the
# Redis users in USERS the file with their passwords' digests. What is there stays.
# Run by docker compose before everything else, as root without capabilities: files are readable by all, and each
# directory is a volume of its own that its role alone mounts.
set -eu
umask 022
users=$1
secrets=$2

make_password() {
  [ -s "$1" ] && return
  head -c 32 /dev/urandom | sha256sum | cut -d ' ' -f 1 >"$1.new"
  mv "$1.new" "$1"
}

digest_of() { printf %s "$(cat "$secrets/$1/password")" | sha256sum | cut -d ' ' -f 1; }

for role in coordinator evaluator exporter grafana; do
  make_password "$secrets/$role/password"
done

# By address with the user and without: the exporter's releases differ in which one they look for.
sed 's|.*|{"redis://exporter@redis:6379": "&", "redis://redis:6379": "&"}|' "$secrets/exporter/password" \
  >"$secrets/exporter/passwords.json.new"
mv "$secrets/exporter/passwords.json.new" "$secrets/exporter/passwords.json"

cat "$users/users.acl" "$users/more-users.acl" |
  sed -e "s/COORDINATOR_PASSWORD_SHA256/$(digest_of coordinator)/" \
    -e "s/EVALUATOR_PASSWORD_SHA256/$(digest_of evaluator)/" \
    -e "s/EXPORTER_PASSWORD_SHA256/$(digest_of exporter)/" >"$secrets/redis/users.acl.new"
mv "$secrets/redis/users.acl.new" "$secrets/redis/users.acl"
