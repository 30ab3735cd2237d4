#!/usr/bin/env bash
# A bash executor of the demo: executor.sh AGENT COORDINATOR_PID SESSION COORDINATOR PAUSE, with BUS_URL set.
#
# Takes tasks until the coordinator says that all is done, or is gone. A file is one step: `bus apply` acknowledges, saves
# the result and reports progress in one transaction. In the middle of file number PAUSE it says so and stops, so that it
# can be killed there.
set -euo pipefail
agent=$1 coordinator_pid=$2 session=$3 coordinator=$4 pause=$5
# shellcheck disable=SC1090 # the command knows where
source "$(bus shell)"

register_agent "$agent" milestone-executor demo "$session" '["bash"]' $$

# field NAME JSON: the text of a key that needs no escapes (a receipt, an id, a URI), without starting a process.
field() {
  REPLY=${2#*\""$1"\":\"}
  REPLY=${REPLY%%\"*}
}

coordinator_lives() {
  kill -0 "$coordinator_pid" 2>/dev/null
}

count=0
while coordinator_lives; do
  message=$(receive_agent_message "$agent" 1m || receive_agent_message "$agent" 1m 2s) || continue
  field receipt "$message" && receipt=$REPLY
  if [[ $message == *'"message_type":"phase_transition"'* ]]; then
    ack_agent_message "$receipt"
    break
  fi
  field task_id "$message" && task=$REPLY
  field uri "$message" && printf -v path %b "${REPLY//%/\\x}" && path=${path#file://}

  read -r lines bytes < <(wc -lc <"$path")
  if ((++count == pause)); then
    send_agent_message "$agent" "$coordinator" progress_update \
      "{\"task_id\": \"$task\", \"status\": \"counted, not hashed\", \"message\": \"$receipt\"}" 10 >/dev/null
    while coordinator_lives; do sleep 1; done
    exit 1
  fi
  digest=$(sha256sum <"$path")

  bus apply >/dev/null <<END
{"op": "messages.ack", "receipt": "$receipt"}
{"op": "state.save", "agent": "$agent", "key": "file/$task", "value": "$lines $bytes ${digest%% *}"}
{"op": "messages.send", "from": "$agent", "to": "$coordinator", "type": "progress_update", "payload": {"task_id": "$task", "progress": 100}}
END
done
update_agent_status "$agent" completed
