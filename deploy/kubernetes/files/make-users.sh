# Writes $TARGET: the users of $SOURCE, with the digests of their passwords, a file each in $PASSWORDS. A user that is
# to have a password and has none there is one that this release does without, and left out.
set -eu
: >"$TARGET"
while read -r word user rest; do
  placeholder="$(printf %s "$user" | tr '[:lower:]' '[:upper:]')_PASSWORD_SHA256"
  case "$rest" in
  *"$placeholder"*)
    [ -e "$PASSWORDS/$user" ] || continue
    password=$(cat "$PASSWORDS/$user")
    [ -n "$password" ] || { echo "the password of Redis user $user is empty: put one into its Secret" >&2; exit 1; }
    digest=$(printf %s "$password" | sha256sum | cut -d ' ' -f 1)
    rest=$(printf %s "$rest" | sed "s/$placeholder/$digest/")
    ;;
  esac
  printf '%s\n' "$word $user $rest" >>"$TARGET"
done <"$SOURCE"
