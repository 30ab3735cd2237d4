# shellcheck shell=bash disable=SC2015,SC2016,SC2154
# bus_mailbox.sh: the functions of bus.sh for whoever has a mailbox: looking, taking, acknowledging, giving back.

# _bus_duration TEXT: 30s, 5m, 2h, 7d, 500ms or plain seconds, up to 100 years, in REPLY as an SQL expression of seconds.
_bus_duration() {
  [[ $1 =~ ^([0-9]{0,13})(\.[0-9]{0,18})?(ms|s|m|h|d)?$ && $1 == *[0-9]* ]] ||
    { _bus_fail usage "not a duration: ${1:0:40}" "write 30s, 5m, 2h, 7d or plain seconds"; return; }
  local -A _seconds=([ms]=1 [s]=1 [m]=60 [h]=3600 [d]=86400)
  local _factor=${_seconds[${BASH_REMATCH[3]:-s}]} _parts=1
  [[ ${BASH_REMATCH[3]} != ms ]] || _parts=1000
  ((10#0${BASH_REMATCH[1]} * _factor - (${#BASH_REMATCH[2]} < 2) < 3162240000 * _parts)) ||
    { _bus_fail usage "not a duration: $1" "give 0 to 100 years"; return; }
  REPLY="0${BASH_REMATCH[1]}${BASH_REMATCH[2]}*$_factor.0/$_parts"
}

# _bus_receipt TEXT: whether it can be one. A caller may have it from a =~, and want the rest of BASH_REMATCH, too.
_bus_receipt() {
  local _id=${1%.*}
  [[ $1 == [0-9]*.[0-9]* && ${1/.} != *[!0123456789]* ]] && ((${#_id} <= 18 && ${#1} - ${#_id} <= 19)) ||
    _bus_fail usage "not a receipt: ${1:0:40}" "a receipt looks like 42.3"
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

# _bus_claim ID LIMIT SCRIPT PARAMETER…: the messages that are leased, in their order, in `_records`, after the script has
# done its part; 1 when there is none, not even after the leases of the dead came back.
_bus_claim() {
  _bus_bytes || local LC_ALL=C
  local _row _rest _holders _damaged
  local -a _parts
  for _ in 1 2 3; do
    _bus_sql write "$_bus_verify.read messages/receive.sql
$_bus_bury_damaged$3.read messages/holders.sql
select '!', id from taken where damaged;" agent "$1" limit# "$2" "${@:4}" || return
    # rank|id|record; !|id of what is damaged, which no agent is called; and the holders. What can't be sorted, for want of
    # room, a process or the program, is handed out as it is: it may be acknowledged, and nobody would hear of it again.
    [[ $REPLY != *$'\n'*$'\n'* ]] || ! _rest=$(printf %s "$REPLY" | LC_ALL=C command sort -t'|' -k1,1g -k2,2n) || REPLY=$_rest
    _records=() _holders='' _damaged='|'
    _bus_parts "$REPLY" $'\n'
    for _row in ${_parts[@]+"${_parts[@]}"}; do
      [[ $_row != '!|'* ]] || _damaged+="${_row#*|}|"
    done
    for _row in ${_parts[@]+"${_parts[@]}"}; do
      _rest=${_row#*|}
      if [[ ${_rest#*|} == '{'* ]]; then
        [[ $_damaged == *"|${_rest%%|*}|"* ]] || _records+=("${_rest#*|}")
      elif [[ $_row != '!|'* ]]; then
        _holders+=$_row$'\n'
      fi
    done
    ((${#_records[@]} == 0)) || return 0
    [[ $_damaged != '|' ]] || _bus_relieve "$_holders" || return
  done
  return 1
}

# _bus_acknowledged RECORD: as it is when its message is acknowledged at once, in REPLY. In a payload the words that tell
# the status come earlier, in texts behind it their quotes are escaped. (To remove a prefix or a suffix by a pattern, bash
# looks through the whole text for each place that it tries.)
_bus_acknowledged() {
  local _leased=',"status":"leased",' _sign=$'\x1e' _rest # JSON has that sign only escaped
  local -a _parts
  _bus_parts "${1//"$_leased"/$_sign}" "$_sign"
  printf -v REPLY "%s$_leased" "${_parts[@]:0:${#_parts[@]}-1}"
  _rest=${_parts[${#_parts[@]}-1]}
  [[ ! $_rest =~ ^([^,]*,\"delivered_at\":([^,]*),\"acknowledged_at\":)null(,[^,]*,\"due_at\":)[^,]*(.*)$ ]] ||
    _rest=${BASH_REMATCH[1]}${BASH_REMATCH[2]}${BASH_REMATCH[3]}null${BASH_REMATCH[4]}
  REPLY="${REPLY%"$_leased"},\"status\":\"acknowledged\",$_rest"
}

# get_agent_messages ID [true]: a JSON array; true takes them, else (or false) it only looks
get_agent_messages() {
  _bus_arguments 1 2 "ID [true]" "$@" || return
  [[ ${2:-} == @(|true|false) ]] || { _bus_fail usage "true takes the messages, false only looks: not '$2'"; return; }
  _bus_bytes || local LC_ALL=C
  local REPLY _status=0 _record _id
  local -a _records=() _taken=() _parts=()
  if [[ ${2:-} != true ]]; then
    _bus_sql read '.read messages/pending.sql' agent "$1" limit# 10000 ||
      { _bus_else $? "" messages --pending="$1" --limit 10000 --json; return; }
    _bus_parts "$REPLY" $'\n'
    _taken=(${_parts[@]+"${_parts[@]}"})
  else
    _bus_stdout || return
    _bus_claim "$1" 10000 "$_bus_finish" || _status=$?
    ((_status <= 1)) || { _bus_else "$_status" "" receive --limit 10000 --ack --json -- "$1" || _status=$?
      return $((_status == 1 || _status == _bus_elsewhere ? 0 : _status)); }
    for _record in ${_records[@]+"${_records[@]}"}; do
      _id=${_record#*:} && _bus_ring "|message=${_id%%,*}"
      _bus_acknowledged "$_record"
      _taken+=("$REPLY")
    done
  fi
  local IFS=,
  _bus_print "[${_taken[*]-}]"
}

# _bus_hand_out TEXT: a line of it; a reader who has gone ends no shell, which could give nothing back then. In a $(…), where
# a caller's traps don't hold, a trap of ours harms nobody.
_bus_hand_out() {
  local _status=0
  if ((BASH_SUBSHELL)); then
    trap '' PIPE
    _bus_print "$1" || _status=$?
    trap - PIPE
    return "$_status"
  elif [[ -p /dev/fd/1 ]]; then
    (trap '' PIPE && _bus_print "$1")
  else
    _bus_print "$1"
  fi
}

# receive_agent_message ID [LEASE] [WAIT]: one message with its receipt, as a JSON object; else nothing and 1
receive_agent_message() {
  _bus_arguments 1 3 "ID [LEASE] [WAIT]" "$@" && _bus_stdout || return
  local REPLY IFS=' ' _status=$_bus_elsewhere
  local -a _records=() _lease=()
  [[ -z ${2:-} ]] || { _bus_duration "$2" && _lease=(lease# "$REPLY"); } || return
  [[ -z ${2:-} || ! $2 =~ ^0*(\.(0*(m|h|d)|(000[0-9]*|0{0,2})s?|[0-9]*ms)|(ms|s|m|h|d)?)$ ]] ||
    { _bus_fail usage "a lease of no time is no lease" "give at least 0.001 seconds"; return; }
  [[ -n ${3:-} ]] || { _bus_claim "$1" 1 '' ${_lease[@]+"${_lease[@]}"} && _status=0 || _status=$?; }
  ((_status != 1)) || return 1
  if ((_status)); then
    # Who waits ends when nobody reads from it any more, nor from the caller.
    { REPLY=$(BUS_READER=9 _bus_else "$_status" "" receive --limit 1 ${2:+"--lease=$2"} ${3:+"--wait=$3"} -- "$1"); } 9>&1 ||
      return
    REPLY=${REPLY#[} _records=("${REPLY%]}")
  fi
  _bus_hand_out "${_records[0]}" && return || _status=$?
  # Nobody has read it, so it goes back. The payload comes before the receipt.
  [[ ${_records[0]} =~ .*,\"receipt\":\"([0-9.]+) ]] && release_agent_message "${BASH_REMATCH[1]}" &>/dev/null || :
  return "$_status"
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
  local REPLY=0
  [[ -z ${2:-} ]] || _bus_duration "$2" || return
  _bus_sql write '.read messages/release.sql' receipts "[\"$1\"]" delay# "$REPLY" ||
    { _bus_else $? "" release --delay "${2:-0}" "$1"; return; }
  _bus_ring "$REPLY"
  [[ $REPLY != *"|dead"* ]] || _bus_ring "|message=$((10#${1%.*}))"
}
