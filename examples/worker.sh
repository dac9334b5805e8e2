#!/usr/bin/env bash
# A worker for a KuPool pool in bash 4 with sha256sum: one connection, one submission at a time.
#   examples/worker.sh localhost 8080 alice.sh        Ctrl-C ends it.
set -eu
host=${1:-localhost} port=${2:-8080} username=${3:-worker}
command -v sha256sum >/dev/null || sha256sum() { shasum -a 256; } # macOS has the other one
exec 3<>"/dev/tcp/$host/$port"
trap 'exit 0' INT TERM

line='' job='' nonce='' sent=''
printf '{"id":1,"method":"authorize","params":{"username":"%s"}}\n' "$username" >&3
while true; do
  # Half a second over the permitted one between two submissions, counted from the answer.
  if read -r -t 1.5 -u 3 part; then
    line+=$part
    case $line in
      *'"method":"job"'*) # only the newest matters
        [[ $line =~ \"job_id\":([0-9]+) ]] && job=${BASH_REMATCH[1]}
        [[ $line =~ \"server_nonce\":\"([0-9a-f]+)\" ]] && nonce=${BASH_REMATCH[1]} ;;
      *'"method":"close"'*) echo "closed: $line" && exit 1 ;;
      *'"id":1,"result":false'*) echo "not authorized: $line" && exit 1 ;;
      *'"id":2,'*) sent='' && echo "$line" ;;
    esac
    line=''
  elif (($? <= 128)); then
    echo 'the server ended the connection' && exit 1
  else
    line+=$part # a timeout may leave half a line
    if [[ $job && ! $sent ]]; then
      sent=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
      result=$(printf '%s%s' "$nonce" "$sent" | sha256sum | cut -d' ' -f1)
      printf '{"id":2,"method":"submit","params":{"job_id":%s,"client_nonce":"%s","result":"%s"}}\n' \
        "$job" "$sent" "$result" >&3
    fi
  fi
done
