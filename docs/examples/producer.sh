#!/bin/sh
# Feeds a small run to a store; fails unless all of it was accepted.
# Usage: sh producer.sh SOCKET
events() {
  echo '{"type":"orch.started","payload":{"graph":{"nodes":[{"id":"compile"},{"id":"link"}],"edges":[{"from":"link","to":"compile"}]}}}'
  for unit in compile link; do
    echo '{"type":"unit.started","unit":"'$unit'","time":"'$(date -u +%Y-%m-%dT%H:%M:%SZ)'"}'
    echo '{"type":"unit.completed","unit":"'$unit'","time":"'$(date -u +%Y-%m-%dT%H:%M:%SZ)'"}'
  done
  echo '{"type":"orch.completed"}'
}

heard=$({ echo '{"hello":{"protocol":1}}'; events; } | nc -N -U "${1:?usage: sh producer.sh SOCKET}")
case $heard in
  *'"reject"'* | *'"error"'*) echo "$heard" >&2; exit 1 ;;
  *'{"ack":{"lines":6}}') echo "6 events accepted" ;;
  *) echo "the store was gone before it had acked all" >&2; exit 1 ;;
esac
