# bus.sh: the functions of shell agents. Use: source "$(bus shell)"
#
# They run the SQL files of schemas/operations as they stand: through sqlite3 where it is on the path (3.38 or newer),
# else through the bus command, which is also asked for what SQL alone can't do (waiting, upgrades, deep JSON). One call
# is one transaction. Everything else here is quoting: values travel as SQL text on standard input, never as arguments.
#
# Functions return the exit statuses of the bus command and print errors as one line on stderr. BUS_URL names the bus
# (else the nearest .milestones/coordination.db), BUS_COMMAND the bus command, BUS_SHELL_VIA=bus|sqlite3 forces a way.
# Needs bash 4.2 or newer.

_bus_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [[ -d $_bus_here/../../schemas ]]; then
  _bus_schemas=$_bus_here/../../schemas
  _bus_default=$_bus_here/../../bin/bus
else
  _bus_schemas=$_bus_here/../bus/schemas
  _bus_default=bus
fi
for _bus_newest in "$_bus_schemas"/sqlite/[0-9]*.sql; do :; done
_bus_newest=${_bus_newest##*/}
_bus_newest=$((10#${_bus_newest%%_*}))

# Once for a process and its children: which sqlite3 there is.
if [[ ${BUS_SQLITE3:-} != "$(type -P sqlite3)"=* ]]; then
  BUS_SQLITE3=$(type -P sqlite3 || :)=$(sqlite3 -version 2>/dev/null || :)
  export BUS_SQLITE3
fi

_bus() { BUS_ERRORS=text "${BUS_COMMAND:-$_bus_default}" "$@"; }

# --- errors -----------------------------------------------------------------------------------------------------------

# _bus_fail CODE [WORDS] [HINT]: one line on stderr; returns the code's exit status.
_bus_fail() {
  local code status message hint
  while IFS=$'\t' read -r code status message hint; do
    [[ $code == "$1" ]] || continue
    printf 'bus: %s; %s\n' "${2:-$message}" "${3:-$hint}" >&2
    return "$status"
  done <"$_bus_schemas/errors.tsv"
  printf 'bus: %s; run bus doctor\n' "${2:-$1}" >&2
  return 70
}

# _bus_explain OUTPUT: the error that the last line of sqlite3's output tells.
_bus_explain() {
  local line=${1##*$'\n'} text number code
  [[ $line =~ ^[A-Za-z]*\ ?[Ee]rror[^:,]*[:,]\ (stepping,\ |in\ prepare,\ )?(.*)\ \(([0-9]+)\)$ ]] ||
    { _bus_fail fault "SQLite failed: $line"; return; }
  text=${BASH_REMATCH[2]} number=${BASH_REMATCH[3]}
  case $number in
    5 | 6) _bus_fail busy ;;
    8 | 14) _bus_fail unsafe_file "$_bus_file can't be opened for writing" ;;
    10) _bus_fail io_error ;;
    11) _bus_fail damaged ;;
    13) _bus_fail disk_full ;;
    18) _bus_fail payload_too_large ;;
    26) _bus_fail not_a_bus "$_bus_file is not a bus" ;;
    19)
      text=${text#CHECK constraint failed: }
      code=${text%%: *}
      if [[ $code =~ ^[a-z_]+$ ]]; then
        [[ $text == *": "* ]] && text=${text#*: } || text=
        [[ $code != invalid_payload || $text == *" "* ]] || text="the payload is no $text"
        _bus_fail "$code" "$text"
      else
        _bus_fail invalid_value "$text"
      fi
      ;;
    *) _bus_fail fault "SQLite failed: $text" ;;
  esac
}

# _bus_arguments LEAST MOST GIVEN WORDS: whether so many were given.
_bus_arguments() {
  (($3 >= $1 && $3 <= $2)) || _bus_fail usage "${FUNCNAME[1]} takes $4" "see the list in README"
}

# _bus_number TEXT: a whole number, in REPLY without its leading zeros.
_bus_number() {
  [[ $1 =~ ^[0-9]{1,18}$ ]] || { _bus_fail usage "not a whole number: ${1:0:40}" "write digits"; return; }
  REPLY=$((10#$1))
}

# _bus_duration TEXT: 30s, 5m, 2h, 7d, 500ms or plain seconds, in REPLY as an SQL expression of seconds.
_bus_duration() {
  [[ $1 =~ ^([0-9]{1,10}(\.[0-9]{0,6})?|\.[0-9]{1,6})(ms|s|m|h|d)?$ ]] ||
    { _bus_fail usage "not a duration: ${1:0:40}" "write 30s, 5m, 2h, 7d or plain seconds"; return; }
  local -A seconds=([ms]=0.001 [s]=1 [m]=60 [h]=3600 [d]=86400)
  REPLY="0${BASH_REMATCH[1]}*${seconds[${BASH_REMATCH[3]:-s}]}"
}

# --- where the bus is -------------------------------------------------------------------------------------------------

# Sets _bus_file and _bus_synchronous, and returns 0 when sqlite3 can be used on it; 1 when the bus command must be; else
# prints what is wrong.
_bus_locate() {
  local url=${BUS_URL:-} folder=$PWD version
  if [[ -z $url ]]; then
    until [[ -e $folder/.milestones/coordination.db || -L $folder/.milestones/coordination.db ]]; do
      [[ -n $folder ]] || { _bus_fail no_bus; return; }
      folder=${folder%/*}
    done
    url=$folder/.milestones/coordination.db
  fi
  _bus_synchronous=full
  [[ $url == *'?synchronous=normal' ]] && _bus_synchronous=normal
  _bus_file=${url%'?synchronous='*}
  _bus_file=${_bus_file#sqlite:///}
  version=${BUS_SQLITE3#*=3.}
  [[ ${BUS_SHELL_VIA:-sqlite3} == sqlite3 && $version =~ ^([0-9]+) && ${BASH_REMATCH[1]} -ge 38 ]] || return 1
  _bus_minor=${BASH_REMATCH[1]}
  [[ $_bus_file != *[:?%]* ]] || return 1
  [[ -L $_bus_file ]] && { _bus_fail unsafe_file "$_bus_file is a symbolic link" "name the file itself"; return; }
  [[ -e $_bus_file ]] || { _bus_fail no_bus "there is no bus at $_bus_file"; return; }
  [[ -f $_bus_file ]] || { _bus_fail not_a_bus "$_bus_file is not a file"; return; }
  [[ -w $_bus_file ]] || { _bus_fail unsafe_file "$_bus_file can't be written" "check the permissions"; return; }
}

# _bus_plain TEXT: whether sqlite3 may be given this text. Lone surrogates, deep nesting and what may not be UTF-8 are for
# the bus command to judge, because SQL can't; and what is large, because bash is slow at quoting it.
_bus_plain() {
  local LC_ALL=C brackets
  ((${#1} < 32768)) || return 1
  [[ $1 != *\\u[dD][89abABc-fC-F]* ]] || return 1
  [[ $1 == *[$'\x80'-$'\xff']* ]] && { iconv -f utf-8 -t utf-8 <<<"$1" &>/dev/null || return 1; }
  brackets=${1//[^\[\{]/}
  ((${#brackets} <= 64))
}

# --- running the SQL files --------------------------------------------------------------------------------------------

# The moment as the database writes it, in REPLY.
_bus_now() {
  local seconds fraction=000 now=${EPOCHREALTIME:-}
  if [[ ${BUS_NOW:-} == [0-9]* ]]; then
    REPLY=$BUS_NOW
    return
  fi
  [[ -n $now ]] || now=$(date +%s.%6N)
  seconds=${now%[.,]*} fraction=${now#*[.,]}
  [[ -z ${BUS_NOW:-} ]] || seconds=$((seconds + ${BUS_NOW%.*}))
  TZ=UTC printf -v REPLY '%(%Y-%m-%d %H:%M:%S)T.%s' "$seconds" "${fraction:0:3}"
}

# _bus_literal TEXT: an SQL literal of it, in REPLY. The shell of SQLite drops a CR before a LF, so that CRs go by another
# name, which the text does not contain and which can't arise where it is put in: it begins and ends as it does nowhere
# within.
_bus_literal() {
  local LC_ALL=C text=$1 quote="'" quotes="''" number=0
  text=${text//$quote/$quotes}
  if [[ $text == *$'\r'* ]]; then
    while [[ $text == *"<$number>"* ]]; do ((++number)); done
    REPLY="replace('${text//$'\r'/<$number>}', '<$number>', char(13))"
  else
    REPLY="'$text'"
  fi
}

# _bus_script WRITES "OPERATION…" [KEY TEXT | KEY# SQL]…: the script for sqlite3, in REPLY. An operation is a file of
# schemas/operations or, beginning with a space, a line of the script itself.
_bus_script() {
  local writes=$1 operations=$2 rows operation script
  shift 2
  _bus_now
  rows="(':now', '$REPLY')"
  while (($#)); do
    if [[ $1 == *'#' ]]; then REPLY=$2; else _bus_literal "$2"; fi
    rows+=$',\n'"(':${1%#}', $REPLY)"
    shift 2
  done
  script=".timeout 5000
.output /dev/null
.dbconfig no_ckpt_on_close on
pragma wal_autocheckpoint = 0;
pragma synchronous = $_bus_synchronous;
create temp table this_bus (matches constraint another_version check (matches));
insert into this_bus select user_version = $_bus_newest and application_id = 1098146163
from pragma_user_version, pragma_application_id;
.parameter init
.output
insert into temp.sqlite_parameters (key, value) values $rows;
begin${writes:+ immediate};
"
  while read -r operation; do
    if [[ $operation == [a-z]*/* ]]; then script+=".read '$_bus_schemas/operations/$operation.sql'"; else script+=$operation; fi
    script+=$'\n'
  done <<<"$operations"
  REPLY="$script${writes:+commit;}"
}

# _bus_sqlite WRITES OPERATIONS PARAMETERS…: runs it; the output, whole, in REPLY. Writers queue on the turnstile.
_bus_sqlite() {
  local writes=$1 status output
  local -a command=(sqlite3 -batch -bail -init /dev/null)
  ((_bus_minor < 50)) || command+=(-escape off)
  [[ -z $writes ]] || ! type -P flock >/dev/null || command=(flock -w 5 -E 75 "$_bus_file.turn" "${command[@]}")
  _bus_script "$@"
  output=$(umask 077; "${command[@]}" "$_bus_file" <<<"$REPLY" 2>&1 && printf x) && status=0 || status=$?
  if ((status == 0)); then
    REPLY=${output%x}
    [[ -z $writes ]] || ((RANDOM % 16)) || _bus_checkpoint
  elif ((status == 75)); then
    _bus_fail busy
  elif [[ $output == *"CHECK constraint failed: another_version"* ]]; then
    return 125 # for the bus command, which upgrades it or says what it is
  else
    _bus_explain "${output%$'\n'}"
  fi
}

# _bus_direct DOCUMENT WRITES OPERATIONS PARAMETERS…: as _bus_sqlite, where that can be done; returns 1 where the bus
# command must do it.
_bus_direct() {
  local document=$1 status=0
  shift
  _bus_locate || return
  _bus_plain "$document" || return 1
  _bus_sqlite "$@" || status=$?
  ((status != 125)) || status=1
  return $status
}

# Keeps the WAL small, now and then, as every writer does: one connection holds the write lock while the other
# checkpoints, because before SQLite 3.51.3 a checkpoint that races with a commit can lose it.
_bus_checkpoint() {
  local size
  size=$(stat -c %s "$_bus_file-wal" 2>/dev/null) && ((size > 4 << 20)) || return 0
  sqlite3 -batch -init /dev/null "$_bus_file" &>/dev/null <<END || :
.timeout 1000
.dbconfig no_ckpt_on_close on
pragma wal_autocheckpoint = 0;
begin immediate;
.system sqlite3 -batch -init /dev/null -cmd '.dbconfig no_ckpt_on_close on' '${_bus_file//\'/\'\\\'\'}' 'pragma wal_checkpoint(passive)'
rollback;
END
}

# _bus_ring BELL…: wakes whoever waits there; see bus/store/doorbell.py.
_bus_ring() {
  local bell
  for bell; do
    [[ ! -e $_bus_file.bells/$bell ]] || : >"$_bus_file.bells/$bell"
  done 2>/dev/null
}

# _bus_array LINES: JSON objects, a line each, as an array.
_bus_array() {
  local lines=${1%$'\n'}
  printf '[%s]\n' "${lines//$'\n'/,$'\n'}"
}

# --- who lives --------------------------------------------------------------------------------------------------------

# _bus_process PID: when it started, in REPLY (clock ticks after the boot); not for a zombie.
_bus_process() {
  local stat=
  { IFS= read -r -d '' stat <"/proc/$1/stat" || :; } 2>/dev/null
  [[ -n $stat ]] || return 1
  local -a fields
  read -ra fields <<<"${stat##*) }"
  [[ ${fields[0]} != [ZX] ]] && REPLY=${fields[19]}
}

# _bus_is_dead HOST PID NAMESPACE STARTED BOOT: whether that process is known to be gone.
_bus_is_dead() {
  [[ -n $2 && -n $5 && $1 == "$HOSTNAME" ]] || return 1
  [[ $5 == "$(</proc/sys/kernel/random/boot_id)" ]] || return 0
  [[ $3 == "$(readlink /proc/self/ns/pid)" ]] || return 1
  ! _bus_process "$2" || [[ $REPLY != "$4" ]]
}

# _bus_bury LINES: gives back what the dead among these holders (agent|host|pid|namespace|start|boot) had leased; 1 when
# none of them is known to be dead.
_bus_bury() {
  local agent host pid namespace started boot any=1
  while IFS='|' read -r agent host pid namespace started boot; do
    _bus_is_dead "$host" "$pid" "$namespace" "$started" "$boot" || continue
    _bus_sqlite writes messages/give_back agent "$agent" || return
    _bus_ring_rows "$REPLY"
    any=0
  done <<<"$1"
  return $any
}

# _bus_ring_rows "ID|ADDRESS…": rings the addresses.
_bus_ring_rows() {
  local id address rest
  while IFS='|' read -r id address rest; do
    [[ -z $address ]] || _bus_ring "$address"
  done <<<"$1"
}

# --- the functions ----------------------------------------------------------------------------------------------------

initialize_agent_coordination() {
  _bus init >/dev/null
}

# register_agent ID TYPE MILESTONE SESSION [CAPABILITIES_JSON] [PID]
register_agent() {
  _bus_arguments 4 6 $# "ID TYPE MILESTONE SESSION [CAPABILITIES_JSON] [PID]" || return
  local capabilities=${5:-[]} status=0
  local -a process=()
  [[ -z ${6:-} ]] || _bus_identify "$1" "$6" || return
  _bus_direct "$capabilities" writes agents/register agent "$1" type "$2" milestone "$3" session "$4" \
    capabilities "$capabilities" ${process[@]+"${process[@]}"} || status=$?
  ((status == 1)) || return $status
  _bus register --type "$2" --milestone "$3" --session "$4" --capabilities "$capabilities" ${6:+--pid "$6"} -- "$1" >/dev/null
}

# _bus_identify ID PID: sets `process` to what tells the process from others, after what a dead one before it had leased
# under the same id was given back.
_bus_identify() {
  local status=0
  _bus_number "$2" || return
  _bus_process "$2" || { _bus_fail usage "there is no process $2" "give the pid of the agent itself, or none"; return; }
  process=(host "$HOSTNAME" pid# "$2" pid_namespace "$(readlink /proc/self/ns/pid)"
    process_started_at# "$REPLY" boot_id "$(</proc/sys/kernel/random/boot_id)")
  _bus_direct "" "" agents/identity agent "$1" || status=$?
  ((status == 0)) || return $((status == 1 ? 0 : status))
  _bus_bury "$REPLY" || :
}

# update_agent_status ID STATUS
update_agent_status() {
  _bus_arguments 2 2 $# "ID STATUS" || return
  local status=0
  case $2 in
    completed | failed | terminated)
      _bus_direct "" writes $'messages/give_back\nagents/retire' agent "$1" status "$2" || status=$?
      ((status)) || _bus_ring_rows "$REPLY"
      ((status == 1)) || return $status
      _bus retire --status "$2" -- "$1" >/dev/null
      ;;
    *)
      _bus_direct "" writes agents/heartbeat agent "$1" status "$2" || status=$?
      ((status == 1)) || return $status
      _bus heartbeat --status "$2" -- "$1" >/dev/null
      ;;
  esac
}

# save_agent_state ID KEY VALUE [TYPE] [TTL]
save_agent_state() {
  _bus_arguments 3 5 $# "ID KEY VALUE [TYPE] [TTL]" || return
  local status=0
  local -a ttl=()
  [[ -z ${5:-} ]] || { _bus_duration "$5" && ttl=(ttl# "$REPLY"); } || return
  _bus_direct "$3" writes state/save agent "$1" key "$2" value "$3" type "${4:-user_data}" ${ttl[@]+"${ttl[@]}"} || status=$?
  ((status)) || _bus_ring "state=$1"
  ((status == 1)) || return $status
  printf %s "$3" | _bus state save ${5:+--ttl "$5"} --type "${4:-user_data}" -- "$1" "$2" - >/dev/null
}

# load_agent_state ID KEY
load_agent_state() {
  _bus_arguments 2 2 $# "ID KEY" || return
  local status=0
  # The version comes first, on a line of its own: a value may be empty.
  _bus_direct "" "" $'.mode list\n.separator "\\n"\nstate/load' agent "$1" key "$2" || status=$?
  if ((status == 0)); then
    [[ -n $REPLY ]] || return 1
    REPLY=${REPLY%$'\n'}
    printf '%s\n' "${REPLY%$'\n'*}"
  fi
  ((status == 1)) || return $status
  _bus state load -- "$1" "$2"
}

# send_agent_message FROM TO TYPE PAYLOAD [PRIORITY]: prints the id
send_agent_message() {
  _bus_arguments 4 5 $# "FROM TO TYPE PAYLOAD [PRIORITY]" || return
  local priority operation=messages/send status=0
  _bus_number "${5:-5}" || return
  priority=$REPLY
  [[ $2 != '*' ]] || operation=messages/broadcast
  _bus_direct "$4" writes $operation from "$1" to "$2" type "$3" payload "$4" priority# "$priority" delay# 0 || status=$?
  if ((status == 0)); then
    _bus_ring_rows "$REPLY"
    [[ -n $REPLY ]] || return 1
    while IFS='|' read -r REPLY _; do printf '%s\n' "$REPLY"; done <<<"${REPLY%$'\n'}"
  fi
  ((status == 1)) || return $status
  printf %s "$4" | _bus send --from "$1" --priority "$priority" -- "$2" "$3" -
}

# _bus_records ROWS: the records of rank|id|record, in the order of rank and id.
_bus_records() {
  local rows=${1%$'\n'}
  [[ $rows != *$'\n'* ]] || rows=$(LC_ALL=C sort -t'|' -k1,1g -k2,2n <<<"$rows")
  REPLY=
  while IFS= read -r rows; do
    rows=${rows#*|}
    REPLY+=${rows#*|}$'\n'
  done <<<"$rows"
}

# get_agent_messages ID [true]: a JSON array; true takes them, else it only looks
get_agent_messages() {
  _bus_arguments 1 2 $# "ID [true]" || return
  local status=0
  if [[ ${2:-} == true ]]; then
    _bus_take "$1"
    return
  fi
  _bus_direct "" "" messages/pending agent "$1" limit# 1000 || status=$?
  ((status)) || _bus_array "$REPLY"
  ((status == 1)) || return $status
  _bus messages --pending="$1" --json
}

# What is leased anew is what was not leased before: SQL hands no rows from one statement to the next.
_bus_take() {
  local status=0 rows id
  _bus_direct "" writes "create temp table held as
select id, delivery from agent_messages where due_at is not null and status = 'leased' and leased_by = :agent;
messages/receive
insert into temp.sqlite_parameters (key, value)
select ':receipts', json_group_array(id || '.' || delivery) from agent_messages
where due_at is not null and status = 'leased' and leased_by = :agent and (id, delivery) not in (select id, delivery from held);
.output /dev/null
messages/ack
.output" agent "$1" limit# 1000 || status=$?
  if ((status == 0)); then
    rows=$REPLY
    while IFS='|' read -r _ id _; do [[ -z $id ]] || _bus_ring "message=$id"; done <<<"$rows"
    [[ -n $rows ]] && _bus_records "$rows"
    _bus_array "${REPLY//\"status\":\"leased\"/\"status\":\"acknowledged\"}"
  fi
  ((status == 1)) || return $status
  _bus receive --limit 1000 --ack --json -- "$1" || { status=$?; ((status == 1)) || return $status; }
}

# receive_agent_message ID [LEASE] [WAIT]: one message with its receipt, as a JSON object; else nothing and 1
receive_agent_message() {
  _bus_arguments 1 3 $# "ID [LEASE] [WAIT]" || return
  local status=0
  local -a lease=()
  [[ -z ${2:-} ]] || { _bus_duration "$2" && lease=(lease# "$REPLY"); } || return
  if [[ -z ${3:-} ]]; then
    _bus_claim "$1" || status=$?
    ((status == 2)) || return $status
  fi
  status=0
  REPLY=$(_bus receive ${2:+--lease "$2"} ${3:+--wait "$3"} -- "$1") || status=$?
  ((status == 0)) || return $status
  REPLY=${REPLY#[}
  printf '%s\n' "${REPLY%]}"
}

# _bus_claim ID: receives by sqlite3, after the leases of the dead came back if there is nothing else; 2 where the bus
# command must do it.
_bus_claim() {
  local status=0 _
  for _ in 1 2; do
    _bus_direct "" writes $'messages/receive\nmessages/holders' agent "$1" limit# 1 ${lease[@]+"${lease[@]}"} || status=$?
    ((status == 0)) || return $((status == 1 ? 2 : status))
    if [[ $REPLY =~ ^-?[0-9.e+]+\|[0-9]+\|\{ ]]; then
      _bus_records "${REPLY%%$'\n'*}"
      printf %s "$REPLY"
      return
    fi
    _bus_bury "$REPLY" || return 1
  done
  return 1
}

# ack_agent_message RECEIPT
ack_agent_message() {
  _bus_arguments 1 1 $# RECEIPT && _bus_receipt "$1" || return
  local status=0
  _bus_direct "" writes messages/ack receipts "[\"$1\"]" || status=$?
  ((status)) || _bus_ring "message=${1%.*}"
  ((status == 1)) || return $status
  _bus ack "$1"
}

# release_agent_message RECEIPT [DELAY]
release_agent_message() {
  _bus_arguments 1 2 $# "RECEIPT [DELAY]" && _bus_receipt "$1" && _bus_duration "${2:-0}" || return
  local status=0
  _bus_direct "" writes messages/release receipts "[\"$1\"]" delay# "$REPLY" || status=$?
  ((status)) || { _bus_ring_rows "$REPLY" && _bus_ring "message=${1%.*}"; }
  ((status == 1)) || return $status
  _bus release --delay "${2:-0}" "$1"
}

_bus_receipt() {
  [[ $1 =~ ^[0-9]{1,18}\.[0-9]{1,18}$ ]] || _bus_fail usage "not a receipt: ${1:0:40}" "a receipt looks like 42.3"
}

# create_agent_checkpoint ID [TYPE] [SNAPSHOT_JSON] [FILE…]: prints its id
create_agent_checkpoint() {
  (($# >= 1)) || _bus_arguments 1 1 $# "ID [TYPE] [SNAPSHOT_JSON] [FILE…]" || return
  local agent=$1 type=${2:-manual} snapshot=${3-} status=0 file files=
  local -a options=()
  [[ -n $snapshot ]] || snapshot='{}'
  shift $(($# < 3 ? $# : 3))
  for file; do
    options+=(--file "$file")
    _bus_reference "$file" || return
    files+=${files:+, }$REPLY
  done
  _bus_direct "$snapshot" writes checkpoints/create agent "$agent" type "$type" snapshot "$snapshot" \
    files# "json_array($files)" || status=$?
  if ((status == 0)); then
    REPLY=${REPLY#'{"checkpoint_id":"'}
    printf '%s\n' "${REPLY%%\"*}"
  fi
  ((status == 1)) || return $status
  printf %s "$snapshot" | _bus checkpoint create --type "$type" --snapshot - ${options[@]+"${options[@]}"} -- "$agent"
}

# _bus_reference FILE: the SQL expression of its path, digest and size, in REPLY.
_bus_reference() {
  local path digest size
  path=$(realpath -s -- "$1" 2>/dev/null && printf x) && digest=$(sha256sum 2>/dev/null <"$1") && size=$(wc -c <"$1") ||
    { _bus_fail usage "the file $1 can't be read" "name a readable file"; return; }
  _bus_literal "${path%$'\n'x}"
  REPLY="json_object('path', $REPLY, 'sha256', '${digest%% *}', 'size', $((size)))"
}

# get_session_status SESSION: a JSON object
get_session_status() {
  _bus_arguments 1 1 $# SESSION || return
  local status=0
  _bus_direct "" "" sessions/show session "$1" || status=$?
  ((status)) || { [[ -n $REPLY ]] && printf %s "$REPLY"; } || _bus_fail unknown_session || return
  ((status == 1)) || return $status
  _bus session show --json -- "$1"
}

# list_session_agents SESSION: a JSON array
list_session_agents() {
  _bus_arguments 1 1 $# SESSION || return
  local status=0
  _bus_direct "" "" $'sessions/show\nagents/agents' session "$1" || status=$?
  if ((status == 0)); then
    [[ -n $REPLY ]] || _bus_fail unknown_session || return
    _bus_array "${REPLY#*$'\n'}"
  fi
  ((status == 1)) || return $status
  _bus agents --session="$1" --json
}
