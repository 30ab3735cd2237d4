#!/usr/bin/env bash
# A bash executor of the demo: executor.sh BUS_SH AGENT SESSION COORDINATOR PAUSE
#
# Takes tasks until the coordinator says that all is done. A file is one step: `bus apply` saves the result, reports
# progress and acknowledges in one transaction. In the middle of task number PAUSE it stops, so that it can be killed.
set -euo pipefail
source "$1"
agent=$2 session=$3 coordinator=$4 pause=$5

register_agent "$agent" milestone-executor demo "$session" '["bash"]' $$

# field NAME JSON: the text of a key. Enough for the paths of the demo; a script of your own would use jq.
field() {
  local rest=${2#*\""$1"\":\"}
  printf %b "${rest%%\"*}"
}

count=0
while true; do
  message=$(receive_agent_message "$agent" 1m || receive_agent_message "$agent" 1m 5m)
  receipt=$(field receipt "$message")
  if [[ $message == *'"message_type":"phase_transition"'* ]]; then
    ack_agent_message "$receipt"
    break
  fi
  task=$(field task_id "$message") path=$(field path "$message")
  if ((++count == pause)); then
    save_agent_state "$agent" holding "$receipt"
    sleep 60
  fi
  lines=$(wc -l <"$path")
  digest=$(sha256sum <"$path")
  "$BUS_COMMAND" apply >/dev/null <<END
{"op": "messages.ack", "receipt": "$receipt"}
{"op": "state.save", "agent": "$agent", "key": "file/$task", "value": "$((lines)) ${digest%% *}"}
{"op": "messages.send", "from": "$agent", "to": "$coordinator", "type": "progress_update", "payload": {"task_id": "$task", "progress": 100}}
END
done
update_agent_status "$agent" completed
