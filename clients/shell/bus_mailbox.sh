# shellcheck shell=bash disable=SC2015,SC2016,SC2154
# bus_mailbox.sh: the functions of bus.sh for whoever has a mailbox: looking, taking, acknowledging, giving back.

# _bus_duration TEXT: 30s, 5m, 2h, 7d, 500ms or plain seconds, up to 100 years, in REPLY as an SQL expression of seconds.
_bus_duration() {
  [[ $1 =~ ^([0-9]{0,10})(\.[0-9]{0,18})?(ms|s|m|h|d)?$ && $1 == *[0-9]* ]] ||
    { _bus_fail usage "not a duration: ${1:0:40}" "write 30s, 5m, 2h, 7d or plain seconds"; return; }
  local -A seconds=([ms]=1 [s]=1 [m]=60 [h]=3600 [d]=86400)
  local factor=${seconds[${BASH_REMATCH[3]:-s}]}
  ((10#0${BASH_REMATCH[1]} * factor - (${#BASH_REMATCH[2]} < 2) < 3162240000)) ||
    { _bus_fail usage "not a duration: $1" "give 0 to 100 years"; return; }
  [[ ${BASH_REMATCH[3]} != ms ]] || factor=0.001
  REPLY="0${BASH_REMATCH[1]}${BASH_REMATCH[2]}*$factor"
}

# _bus_receipt TEXT: whether it can be one.
_bus_receipt() {
  [[ $1 =~ ^[0-9]{1,18}\.[0-9]{1,18}$ ]] || _bus_fail usage "not a receipt: ${1:0:40}" "a receipt looks like 42.3"
}

# Of what is handed out while this trigger is there: whether it is what was sent.
_bus_verify="create temp table taken (id, damaged);
create temp trigger taking after update of delivery on main.agent_messages
begin
  insert into taken
  values (new.id, coalesce(new.digest <> iif(json_valid(new.payload), substr(lower(hex(sha3(json(new.payload), 256))), 1, 16), ''), 0));
end;
"

# What is not is buried at once.
_bus_bury_damaged="update agent_messages
set status = 'dead', dead_reason = 'damaged', reason = 'the text is not what was sent', due_at = null, leased_by = null
where id in (select id from taken where damaged);
"

# Acknowledges what was taken in the same transaction, as messages/finish does.
_bus_finish="update agent_messages set status = 'acknowledged', acknowledged_at = :now, due_at = null
where id in (select id from taken where not damaged);
"

# _bus_claim ID LIMIT SCRIPT PARAMETER…: the messages that are leased, in their order, in `records`, after the script has
# done its part; 1 when there is none, not even after the leases of the dead came back.
_bus_claim() {
  local LC_ALL=C row rest holders damaged
  local -a lines
  for _ in 1 2 3; do
    _bus_sql write "$_bus_verify.read messages/receive.sql
$_bus_bury_damaged$3.read messages/holders.sql
select 'damaged', id from taken where damaged;" agent "$1" limit# "$2" "${@:4}" || return
    # rank|id|record, and before them what is no number: damaged|id, and the holders
    [[ $REPLY != *$'\n'*$'\n'* ]] || REPLY=$(sort -t'|' -k1,1g -k2,2n <<<"${REPLY%$'\n'}")
    records=() holders='' damaged='|'
    _bus_split "$REPLY"
    for row in ${lines[@]+"${lines[@]}"}; do
      rest=${row#*|}
      if [[ $row == 'damaged|'* ]]; then
        damaged+="$rest|"
      elif [[ ${rest#*|} != '{'* ]]; then
        holders+=$row$'\n'
      elif [[ $damaged != *"|${rest%%|*}|"* ]]; then
        records+=("${rest#*|}")
      fi
    done
    ((${#records[@]} == 0)) || return 0
    [[ $damaged != '|' ]] || _bus_bury "$holders" || return
  done
  return 1
}

# _bus_acknowledged RECORD: as it is when its message is acknowledged, in REPLY. In a payload the words that tell the status
# come earlier, in texts behind it their quotes are escaped. (To remove a
# prefix or a suffix by a pattern, bash looks through the whole text for each place that it tries.)
_bus_acknowledged() {
  local - leased=',"status":"leased",' IFS=$'\x1e'
  local -a parts
  set -f
  # shellcheck disable=SC2206  # split it shall be, at a sign that JSON has only escaped
  parts=(${1//"$leased"/$IFS})
  printf -v REPLY "%s$leased" "${parts[@]:0:${#parts[@]}-1}"
  REPLY="${REPLY%"$leased"},\"status\":\"acknowledged\",${parts[${#parts[@]}-1]}"
}

# get_agent_messages ID [true]: a JSON array; true takes them, else it only looks
get_agent_messages() {
  _bus_arguments 1 2 "ID [true]" "$@" || return
  local REPLY status=0 record id LC_ALL=C
  local -a records=() taken=() lines=()
  if [[ ${2:-} != true ]]; then
    _bus_sql read '.read messages/pending.sql' agent "$1" limit# 1000 ||
      { _bus_else $? "" messages --pending="$1" --limit 1000 --json; return; }
    _bus_split "$REPLY"
    taken=(${lines[@]+"${lines[@]}"})
  else
    _bus_claim "$1" 1000 "$_bus_finish" || status=$?
    ((status <= 1)) || { _bus_else "$status" "" receive --limit 1000 --ack --json -- "$1" || status=$?
      return $((status == 1 || status == _bus_elsewhere ? 0 : status)); }
    for record in ${records[@]+"${records[@]}"}; do
      id=${record#*:} && _bus_ring "|message=${id%%,*}"
      _bus_acknowledged "$record"
      taken+=("$REPLY")
    done
  fi
  _bus_array ${taken[@]+"${taken[@]}"}
}

# receive_agent_message ID [LEASE] [WAIT]: one message with its receipt, as a JSON object; else nothing and 1
receive_agent_message() {
  _bus_arguments 1 3 "ID [LEASE] [WAIT]" "$@" || return
  local REPLY IFS=' ' status=$_bus_elsewhere
  local -a records=() lease=()
  [[ -z ${2:-} ]] || { _bus_duration "$2" && lease=(lease# "$REPLY"); } || return
  [[ ! ${2:-1} =~ ^[0.]+(ms|s|m|h|d)?$ ]] || { _bus_fail usage "a lease of no time is no lease" "give more than 0"; return; }
  [[ -n ${3:-} ]] || { _bus_claim "$1" 1 '' ${lease[@]+"${lease[@]}"} && status=0 || status=$?; }
  if ((status)); then
    REPLY=$(_bus_else "$status" "" receive --limit 1 ${2:+--lease "$2"} ${3:+--wait "$3"} -- "$1") || return
    REPLY=${REPLY#[} records=("${REPLY%]}")
  fi
  printf '%s\n' "${records[0]}"
}

# ack_agent_message RECEIPT
ack_agent_message() {
  _bus_arguments 1 1 RECEIPT "$@" && _bus_receipt "$1" || return
  local REPLY
  _bus_sql write '.read messages/ack.sql' receipts "[\"$1\"]" || { _bus_else $? "" ack "$1"; return; }
  _bus_ring "|message=$((10#${1%.*}))"
}

# release_agent_message RECEIPT [DELAY]
release_agent_message() {
  _bus_arguments 1 2 "RECEIPT [DELAY]" "$@" && _bus_receipt "$1" || return
  local REPLY
  _bus_duration "${2:-0}" || return
  _bus_sql write '.read messages/release.sql' receipts "[\"$1\"]" delay# "$REPLY" ||
    { _bus_else $? "" release --delay "${2:-0}" "$1"; return; }
  _bus_ring "$REPLY"
  [[ $REPLY != *"|dead"* ]] || _bus_ring "|message=$((10#${1%.*}))"
}
