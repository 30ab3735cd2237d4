# shellcheck shell=bash disable=SC2015,SC2016,SC2119,SC2120
# `a && b || fail` is meant so; the backticks are words of messages; functions are declared before their bodies are read.
# bus.sh: the functions of shell agents. Use: source "$(bus shell)"
#
# They run the SQL files of schemas/operations as they stand: through sqlite3 where it is on the path (3.38 or newer),
# else through the bus command, which is also asked for what SQL alone can't do (waiting, upgrades, deep JSON). One call
# is one transaction. Everything else here is quoting: values travel as SQL text on standard input, never as arguments.
#
# Functions return the exit statuses of the bus command and print errors as one line on stderr. BUS_URL names the bus
# (else the nearest .milestones/coordination.db), BUS_COMMAND the bus command, BUS_SHELL_VIA=bus|sqlite3 forces a way.
# Needs bash 4.4 or newer.
#
# What is read costs time: up to `return` stands what most scripts need, as plain as can be; what comes after it is read
# when it is first called.

if [[ -z ${_bus_all:-} ]]; then
  _bus_self=${BASH_SOURCE[0]}
  [[ $_bus_self == /* ]] || _bus_self=$PWD/$_bus_self
  _bus_here=${_bus_self%/*}
  _bus_schemas=$_bus_here/../../schemas
  [[ -d $_bus_schemas/operations ]] || _bus_schemas=$_bus_here/../bus/schemas
  for _bus_newest in "$_bus_schemas"/sqlite/[0-9]*.sql; do :; done
  _bus_newest=${_bus_newest##*/}
  _bus_newest=$((10#${_bus_newest%%_*}))
  _bus_operations=${_bus_schemas//\\/\\\\}
  _bus_operations=\"${_bus_operations//\"/\\\"}/operations\"
fi

# Answered by a function that could not do it with sqlite3: the bus command must.
_bus_elsewhere=125

# Reads the rest of this file, and calls the function that it is called by, which is there now.
_bus_rest() {
  local _bus_all=1
  # shellcheck source=/dev/null
  source "$_bus_self"
  "${FUNCNAME[1]}" "$@"
}
_bus_fail() { _bus_rest "$@"; }
_bus_explain() { _bus_rest "$@"; }
_bus_failed() { _bus_rest "$@"; }
_bus_else() { _bus_rest "$@"; }
_bus_moved() { _bus_rest "$@"; }
_bus_special() { _bus_rest "$@"; }
_bus_checkpoint() { _bus_rest "$@"; }
_bus_bury() { _bus_rest "$@"; }
initialize_agent_coordination() { _bus_rest "$@"; }
register_agent() { _bus_rest "$@"; }
update_agent_status() { _bus_rest "$@"; }
create_agent_checkpoint() { _bus_rest "$@"; }
get_session_status() { _bus_rest "$@"; }
list_session_agents() { _bus_rest "$@"; }
detect_interrupted_sessions() { _bus_rest "$@"; }
recover_milestone_session() { _bus_rest "$@"; }
resume_planning_agents() { _bus_rest "$@"; }
complete_planning_session() { _bus_rest "$@"; }
create_milestone_from_recovered_planning() { _bus_rest "$@"; }
start_session_monitor() { _bus_rest "$@"; }
stop_session_monitor() { _bus_rest "$@"; }
cleanup_stale_coordination() { _bus_rest "$@"; }
cleanup_failed_sessions() { _bus_rest "$@"; }
get_session_recovery_status() { _bus_rest "$@"; }
show_recovery_help() { _bus_rest "$@"; }

# --- arguments --------------------------------------------------------------------------------------------------------

# _bus_arguments LEAST MOST WORDS ARGUMENT…: whether so many were given, and the first of them says something.
_bus_arguments() {
  (($# - 3 >= $1 && $# - 3 <= $2)) && [[ -n $4 ]] || _bus_fail usage "${FUNCNAME[1]} takes $3" "see the list in README"
}

# _bus_number TEXT: a whole number, in REPLY without its leading zeros.
_bus_number() {
  [[ -n $1 && $1 != *[!0123456789]* ]] && ((${#1} <= 18)) ||
    { _bus_fail usage "not a whole number: ${1:0:40}" "write digits"; return; }
  REPLY=$((10#$1))
}

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

# --- where the bus is -------------------------------------------------------------------------------------------------

# Sets _bus_file and _bus_synchronous when sqlite3 can be used on it; else says what is wrong.
_bus_locate() {
  local url=${BUS_URL:-} folder=$PWD
  if [[ -z $url ]]; then
    until [[ -e $folder/.milestones/coordination.db || -L $folder/.milestones/coordination.db ]]; do
      [[ -n $folder ]] || { _bus_fail no_bus; return; }
      folder=${folder%/*}
    done
    url=$folder/.milestones/coordination.db
  fi
  [[ ${BUS_SHELL_VIA:-sqlite3} == sqlite3 ]] || return $_bus_elsewhere
  _bus_synchronous=full
  [[ $url != *'?synchronous=normal' ]] || _bus_synchronous=normal
  _bus_file=${url%"?synchronous=$_bus_synchronous"}
  _bus_file=${_bus_file#sqlite:///}
  # Other schemes, and what means something in a file: URI.
  [[ -n $_bus_file && $_bus_file != *[?%#]* && $_bus_file != sqlite:* && $_bus_file != *://* && $_bus_file != [~:]* ]] ||
    return $_bus_elsewhere
  [[ $_bus_file == /* ]] || _bus_file=$PWD/$_bus_file
  # Under two names it would have two WALs, and lose what is written through the other one. A WAL beside it says that this
  # is the name it goes by.
  [[ -f $_bus_file && ! -L $_bus_file && -O $_bus_file && -r $_bus_file && -w $_bus_file && -w ${_bus_file%/*}/ &&
    -e $_bus_file-wal ]] || _bus_special
}

# --- values as SQL ----------------------------------------------------------------------------------------------------

# _bus_literal TEXT: an SQL literal of it, in REPLY; fails for what is not UTF-8, which SQLite would take. The shell of
# SQLite drops a CR before a LF, so that CRs go by a name that the text does not contain, and which can't arise where it
# is put in. Bash is slow at replacing in long texts: one of those is read by SQLite itself, from `big`.
_bus_literal() {
  local text=$1 quote="'" quotes="''" number=0
  [[ $text != *[$'\x80'-$'\xff']* ]] || iconv -f utf-8 -t utf-8 <<<"$text" &>/dev/null || return
  if ((${#text} > 100000)) && [[ -z $big ]]; then # bash passes short ones through a pipe, which readfile() can't read
    big=$text
    REPLY="cast(substr(readfile('/dev/fd/3'), 1, ${#text}) as text)"
    return
  fi
  text=${text//$quote/$quotes}
  REPLY="'$text'"
  [[ $text == *$'\r'* ]] || return 0
  while [[ $text == *"<$number>"* ]]; do ((++number)); done
  REPLY="replace('${text//$'\r'/<$number>}', '<$number>', char(13))"
}

# _bus_document TEXT: whether SQL can judge this JSON. Lone surrogates and deep nesting are for the bus command.
_bus_document() {
  [[ $1 != *\\u[dD][89abABc-fC-F]* ]] || return 1
  ((${#1} > 64)) || return 0
  local - IFS='[{'
  local -a between
  set -f
  # shellcheck disable=SC2206  # split it shall be
  between=($1)
  ((${#between[@]} <= 64))
}

# --- running the SQL files --------------------------------------------------------------------------------------------

# _bus_sql write|read SCRIPT [KEY TEXT | KEY:json JSON | KEY# SQL]…: runs a script of sqlite3 in one transaction, in the
# folder of the operations, with parameters; the output, whole, in REPLY. Writers queue on the turnstile. Only a bus of
# this version is touched, and only by a SQLite that knows what it needs. Returns _bus_elsewhere where the bus command
# must do it.
#
# Where somebody waits at the doorbell `_bus_bell`, sqlite3 rings it, by opening the file, as soon as it has committed;
# `_bus_bell` is empty then. The # keeps the shell from dropping newlines at the end of what comes before it. The exit
# by a status of its own says that the script came to its end; the schema is not taken down piece by piece then.
_bus_sql() {
  local LC_ALL=C script=$2 rows big='' at key value begin=begin checkpoint='' ring='' size output status=0
  local -a turn=()
  _bus_locate || return
  rows="strftime('%Y-%m-%d %H:%M:%f', 'now')"
  [[ -z ${BUS_NOW:-} ]] || _bus_moved
  for ((at = 3; at < $#; at += 2)); do
    key=${!at} value=$((at + 1))
    REPLY=${!value}
    [[ $key != *:json ]] || _bus_document "$REPLY" || return $_bus_elsewhere
    [[ $key == *'#' ]] || _bus_literal "$REPLY" || return $_bus_elsewhere
    rows+="), (':${key%%[#:]*}', $REPLY"
  done
  if [[ $1 == write ]]; then
    begin='begin immediate' turn=(flock -w 5 -F -E 75 "$_bus_file.turn")
    [[ -z ${_bus_no_turn:-} ]] || turn=()
    _bus_writes=$((${_bus_writes:-$$} + 1)) # a process that writes once begins anywhere
    ((${#rows} + ${#big} <= 65536 && _bus_writes % 16)) ||
      ! size=$(stat -c %s "$_bus_file-wal" 2>/dev/null) || ((size <= 4 << 20)) || _bus_checkpoint
    [[ -z ${_bus_bell:-} || $_bus_file$_bus_bell == *[!A-Za-z0-9\ /._:@=+,-]* || $_bus_bell == */* ||
      ! -f $_bus_file.bells/$_bus_bell ]] || ring=$'.bail off\n.output "'$_bus_file.bells/$_bus_bell$'"\n'
  fi
  output=$(
    umask 077
    export LC_ALL BUS_FILE=$_bus_file
    [[ -z $big ]] || exec 3<<<"$big"
    exec ${turn[@]+"${turn[@]}"} sqlite3 -batch -bail -init /dev/null ${_bus_options[@]+"${_bus_options[@]}"} "file://$_bus_file?mode=rw" 2>&1 <<END
.timeout 5000
.output /dev/null
.dbconfig no_ckpt_on_close on
pragma wal_autocheckpoint = 0;
pragma journal_size_limit = 4194304;
pragma synchronous = $_bus_synchronous;
.output
.cd $_bus_operations
$checkpoint
$begin;
.parameter init
insert into temp.sqlite_parameters (key, value) values ((select iif(user_version = $_bus_newest
  and application_id = 1098146163 and cast(substr(sqlite_version(), 3) as real) >= 38, ':now', json('another ' || user_version))
  from pragma_user_version, pragma_application_id), $rows);
$script
commit;
.print #
$ring.exit 3
END
  ) || status=$?
  ((status == 3)) || { _bus_failed $status "$output" || return; _bus_sql "$@"; return; }
  [[ -z $ring ]] || _bus_bell=''
  REPLY=${output%'#'*}
}

# _bus_ring "ID|ADDRESS…": wakes whoever waits at these addresses; see bus/store/doorbell.py.
_bus_ring() {
  local rows=$1 bell
  while [[ $rows == *'|'* ]]; do
    bell=${rows%%$'\n'*}'|' rows=${rows#"${rows%%$'\n'*}"}
    rows=${rows#$'\n'} bell=${bell#*'|'}
    bell=${bell%%'|'*}
    [[ -z $bell || $bell == */* || ! -f $_bus_file.bells/$bell ]] || : >|"$_bus_file.bells/$bell" || :
  done 2>/dev/null
}

# --- the functions ----------------------------------------------------------------------------------------------------

# save_agent_state ID KEY VALUE [TYPE] [TTL]
save_agent_state() {
  _bus_arguments 3 5 "ID KEY VALUE [TYPE] [TTL]" "$@" || return
  local REPLY IFS=' ' _bus_bell=state=$1
  local -a more=()
  [[ -z ${4:-} ]] || more+=(type "$4")
  [[ -z ${5:-} ]] || { _bus_duration "$5" && more+=(ttl# "$REPLY"); } || return
  _bus_sql write '.read state/save.sql' agent "$1" key "$2" value "$3" ${more[@]+"${more[@]}"} ||
    { _bus_else $? "$3" state save ${4:+--type "$4"} ${5:+--ttl "$5"} -- "$1" "$2" - >/dev/null; return; }
  _bus_ring "|$_bus_bell"
}

# load_agent_state ID KEY: prints the value and a newline; 1 when there is none
load_agent_state() {
  _bus_arguments 2 2 "ID KEY" "$@" || return
  local REPLY
  local -a _bus_options=()
  _bus_load "$@" || { _bus_else $? "" state load -- "$1" "$2"; return; }
  # From 3.50 on sqlite3 writes control characters as ^A, unless told not to; before, it does not know the option.
  if [[ ($REPLY == *^* || $REPLY == *$'\xe2\x90'*) && ${REPLY##*$'\n'} =~ ^3\.([0-9]+) ]] && ((BASH_REMATCH[1] >= 50)); then
    _bus_options=(-escape off)
    _bus_load "$@" || return
  fi
  [[ $REPLY == *$'\n'* ]] || return 1
  REPLY=${REPLY%$'\n'*}
  printf '%s\n' "${REPLY%$'\n'*}"
}

# _bus_load ID KEY: the value, which may be empty, its version and that of SQLite, each on a line.
_bus_load() {
  _bus_sql read $'.separator "\\n"\n.read state/load.sql\nselect sqlite_version();' agent "$1" key "$2" || return
  REPLY=${REPLY%$'\n'}
}

# The digest of a payload, as bus/digests.py makes it; what is no JSON is refused later, in better words.
_bus_digest="insert into temp.sqlite_parameters (key, value)
select ':digest', iif(json_valid(value), substr(lower(hex(sha3(json(value), 256))), 1, 16), null)
from temp.sqlite_parameters where key = ':payload';
"

# What is handed out while this trigger is there, and is not what was sent, is buried at once; then :damaged tells it.
_bus_verify="create temp table damaged (id);
create temp trigger damage after update of delivery on main.agent_messages
when new.digest <> iif(json_valid(new.payload), substr(lower(hex(sha3(json(new.payload), 256))), 1, 16), '')
begin
  insert into damaged values (new.id);
  update agent_messages
  set status = 'dead', dead_reason = 'damaged', reason = 'the text is not what was sent', due_at = null, leased_by = null
  where id = new.id;
end;
"

# send_agent_message FROM TO TYPE PAYLOAD [PRIORITY]: prints the id, for '*' an id a line; 1 when nobody is there
send_agent_message() {
  _bus_arguments 4 5 "FROM TO TYPE PAYLOAD [PRIORITY]" "$@" || return
  local REPLY priority operation=messages/send _bus_bell=$2
  _bus_number "${5:-5}" || return
  priority=$REPLY
  [[ $2 != '*' ]] || operation=messages/broadcast _bus_bell=''
  _bus_sql write "$_bus_digest.read $operation.sql" from "$1" to "$2" type "$3" payload:json "$4" priority# "$priority" ||
    { _bus_else $? "$4" send --from "$1" --priority "$priority" -- "$2" "$3" -; return; }
  [[ -n $REPLY ]] || return 1
  [[ $_bus_bell != "$2" && $2 != '*' ]] || _bus_ring "$REPLY"
  while [[ -n $REPLY ]]; do
    printf '%s\n' "${REPLY%%'|'*}"
    REPLY=${REPLY#*$'\n'}
  done
}

# _bus_array RECORD…: prints a JSON array of them.
_bus_array() {
  local IFS=,
  printf '[%s]\n' "$*"
}

# _bus_claim ID LIMIT OPERATIONS PARAMETER…: the messages that these lease, in their order, in `records`; 1 when there is
# none, not even after the leases of the dead came back.
_bus_claim() {
  local LC_ALL=C row rest holders damaged
  for _ in 1 2 3; do
    _bus_sql write "$_bus_verify$3"$'\n.read messages/holders.sql\nselect \'damaged\', id from damaged;' \
      agent "$1" limit# "$2" "${@:4}" || return
    # rank|id|record, and before them what is no number: damaged|id, and the holders
    [[ $REPLY != *$'\n'*$'\n'* ]] || REPLY=$(sort -t'|' -k1,1g -k2,2n <<<"${REPLY%$'\n'}")
    records=() holders='' damaged='|'
    while IFS= read -r row; do
      rest=${row#*|}
      if [[ $row == 'damaged|'* ]]; then
        damaged+="$rest|"
      elif [[ ${rest#*|} != '{'* ]]; then
        holders+=$row$'\n'
      elif [[ $damaged != *"|${rest%%|*}|"* ]]; then
        records+=("${rest#*|}")
      fi
    done <<<"$REPLY"
    ((${#records[@]} == 0)) || return 0
    [[ $damaged != '|' ]] || _bus_bury "$holders" || return
  done
  return 1
}

# What is leased anew is what was not leased before: SQL hands no rows from one statement to the next.
_bus_take="create temp table held as
select id, delivery from agent_messages where due_at is not null and status = 'leased' and leased_by = :agent;
.read messages/receive.sql
insert into temp.sqlite_parameters (key, value)
select ':receipts', json_group_array(id || '.' || delivery) from agent_messages
where due_at is not null and status = 'leased' and leased_by = :agent and (id, delivery) not in (select id, delivery from held);
.output /dev/null
.read messages/ack.sql
.output"

# get_agent_messages ID [true]: a JSON array; true takes them, else it only looks
get_agent_messages() {
  _bus_arguments 1 2 "ID [true]" "$@" || return
  local REPLY status=0 record id LC_ALL=C
  local -a records=() taken=()
  if [[ ${2:-} != true ]]; then
    _bus_sql read '.read messages/pending.sql' agent "$1" limit# 1000 ||
      { _bus_else $? "" messages --pending="$1" --limit 1000 --json; return; }
    [[ -z $REPLY ]] || mapfile -t taken <<<"${REPLY%$'\n'}"
  else
    _bus_claim "$1" 1000 "$_bus_take" || status=$?
    ((status <= 1)) || { _bus_else $status "" receive --limit 1000 --ack --json -- "$1" || status=$?
      return $((status == 1 || status == _bus_elsewhere ? 0 : status)); }
    for record in ${records[@]+"${records[@]}"}; do
      id=${record#*:} && _bus_ring "|message=${id%%,*}"
      # In a payload the same words come earlier, in texts behind it their quotes are escaped.
      taken+=("${record%,\"status\":\"leased\",*},\"status\":\"acknowledged\",${record##*,\"status\":\"leased\",}")
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
  [[ -n ${3:-} ]] || { _bus_claim "$1" 1 '.read messages/receive.sql' ${lease[@]+"${lease[@]}"} && status=0 || status=$?; }
  if ((status)); then
    REPLY=$(_bus_else $status "" receive --limit 1 ${2:+--lease "$2"} ${3:+--wait "$3"} -- "$1") || return
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

# What follows is read when it is first called.
[[ -n ${_bus_all:-} ]] || return 0

# --- errors -------------------------------------------------------------------------------------------------------

# _bus_fail CODE [WORDS] [HINT]: one line on stderr; returns the code's exit status.
_bus_fail() {
  local LC_ALL=C code status message hint line # in C, bytes are seen: no control, bidi or invisible sign gets through
  while IFS=$'\t' read -r code status message hint; do
    [[ $code == "$1" ]] || continue
    line="${2:-$message}; ${3:-$hint}"
    printf 'bus: %s\n' "${line//[^[:print:]]/?}" >&2
    return "$status"
  done <"$_bus_schemas/errors.tsv"
  _bus_fail fault "${2:-$1}"
}

# _bus_explain OUTPUT: fails with the error that the last line of sqlite3's output tells.
_bus_explain() {
  local line=${1##*$'\n'} text code
  [[ $line != flock:* && $line != *"unable to open database"* ]] ||
    { _bus_fail unsafe_file "$_bus_file can't be opened" "check the permissions of file and folder"; return; }
  [[ $line =~ [Ee]rror[^:,]*[:,]\ (stepping,\ |in\ prepare,\ )?(.*)\ \(([0-9]+)\)$ ]] ||
    { _bus_fail fault "SQLite failed: ${line:-without a word}"; return; }
  text=${BASH_REMATCH[2]}
  case ${BASH_REMATCH[3]} in
    5 | 6) _bus_fail busy ;;
    8 | 14) _bus_fail unsafe_file "$_bus_file can't be opened for writing" "check the permissions of file and folder" ;;
    10) _bus_fail io_error ;;
    11) _bus_fail damaged ;;
    13) _bus_fail disk_full ;;
    18) _bus_fail payload_too_large ;;
    26) _bus_fail not_a_bus "$_bus_file is not a bus" ;;
    19)
      text=${text#CHECK constraint failed: }
      code=${text%%: *}
      [[ $code =~ ^[a-z_]+$ ]] || { _bus_fail invalid_value "$text"; return; }
      [[ $text == *": "* ]] && text=${text#*: } || text=
      [[ $code != invalid_payload || $text == *" "* ]] || text="the payload is no $text"
      _bus_fail "$code" "$text"
      ;;
    *) _bus_fail fault "SQLite failed: $text" ;;
  esac
}

# --- the bus command --------------------------------------------------------------------------------------------------

# _bus_else STATUS INPUT ARGUMENT…: where sqlite3 could not do it the bus command does, with INPUT to read; else STATUS
# stands. What the caller's own loop reads from stdin is left alone.
_bus_else() {
  local status=$1 input=$2
  ((status == _bus_elsewhere)) || return "$status"
  shift 2
  type -P -- "${BUS_COMMAND:-$_bus_default}" >/dev/null ||
    { _bus_fail fault "there is no bus command" "install agent-bus, or name it with BUS_COMMAND"; return; }
  (
    export BUS_URL BUS_NOW BUS_ERRORS=text
    exec "${BUS_COMMAND:-$_bus_default}" "$@" < <(printf %s "$input" 2>/dev/null)
  )
}

# --- what is seldom ---------------------------------------------------------------------------------------------------

# What _bus_locate found is not just a bus in use: fails, saying why, unless it is only that nobody has it open.
_bus_special() {
  [[ ! -L $_bus_file ]] || { _bus_fail unsafe_file "$_bus_file is a symbolic link" "name the file itself"; return; }
  [[ -e $_bus_file ]] || { _bus_fail no_bus "there is no bus at $_bus_file"; return; }
  [[ -f $_bus_file ]] || { _bus_fail not_a_bus "$_bus_file is not a file"; return; }
  [[ -O $_bus_file && -r $_bus_file && -w $_bus_file && -w ${_bus_file%/*}/ ]] ||
    { _bus_fail unsafe_file "$_bus_file can't be read and written here" "check owner and permissions of file and folder"; return; }
  local names
  names=$(stat -c %h -- "$_bus_file" 2>/dev/null) || names=1
  ((names == 1)) || _bus_fail unsafe_file "$_bus_file has $names names (hard links)" "SQLite would lose data"
}

# The moment that BUS_NOW gives, or moves by seconds, in `rows`.
_bus_moved() {
  if [[ $BUS_NOW == [+-]* ]]; then
    [[ ! $BUS_NOW =~ ^[+-][0-9]+ ]] || rows="strftime('%Y-%m-%d %H:%M:%f', 'now', '${BASH_REMATCH[0]} seconds')"
  else
    _bus_literal "$BUS_NOW"
    rows=$REPLY
  fi
}

# _bus_sqlite3_is MINOR: whether sqlite3 is 3.MINOR or newer; asked once for a process and its children.
_bus_sqlite3_is() {
  local path
  path=$(type -P sqlite3) || return
  [[ ${BUS_SQLITE3:-} == "$path="* ]] || BUS_SQLITE3=$path=$(sqlite3 -version 2>/dev/null || :)
  export BUS_SQLITE3
  [[ $BUS_SQLITE3 =~ =3\.([0-9]+) ]] && ((BASH_REMATCH[1] >= $1))
}

# _bus_failed STATUS OUTPUT: fails as sqlite3 did, or with _bus_elsewhere; 0 when it may go without a turn.
_bus_failed() {
  (($1 != 75)) || { _bus_fail busy; return; }
  if (($1 == 127)) && [[ -z ${_bus_no_turn:-} ]] && ! type -P flock >/dev/null; then
    _bus_no_turn=1
    return 0
  fi
  [[ $2 != *"malformed JSON"* ]] && _bus_sqlite3_is 38 || return $_bus_elsewhere
  _bus_explain "$2"
}

# What keeps the WAL small, in `checkpoint`, before a transaction: one connection holds the write lock while another
# checkpoints, because before SQLite 3.51.3 a checkpoint that races with a commit can lose it. The transaction behind it,
# in the same process, begins the WAL anew; the next process to open the file would not know that it was checkpointed.
_bus_checkpoint() {
  checkpoint="begin immediate;
.system set -f;IFS=;sqlite3 -batch -init /dev/null -cmd '.dbconfig no_ckpt_on_close on' \$BUS_FILE 'pragma wal_checkpoint(passive)' >/dev/null 2>&1
rollback;"
}

# --- who lives --------------------------------------------------------------------------------------------------------

# _bus_process PID: when it started, in REPLY (clock ticks after the boot); not for a zombie.
_bus_process() {
  local stat=
  local -a fields
  { read -r -d '' stat <"/proc/$1/stat" || :; } 2>/dev/null
  IFS=' ' read -r -a fields <<<"${stat##*) }" # the command before it may hold spaces and parentheses
  [[ -n ${fields[19]:-} && ${fields[0]} != [ZX] ]] && REPLY=${fields[19]}
}

# _bus_place: this host, boot and pid namespace, in `host`, `boot` and `namespace`.
_bus_place() {
  read -r host </proc/sys/kernel/hostname && read -r boot </proc/sys/kernel/random/boot_id &&
    namespace=$(readlink /proc/self/ns/pid) || host='' boot='' namespace=''
} 2>/dev/null

# _bus_is_dead "AGENT|HOST|PID|NAMESPACE|START|BOOT": whether that process is known to be gone.
_bus_is_dead() {
  local host boot namespace its_host its_pid its_namespace its_start its_boot
  IFS='|' read -r _ its_host its_pid its_namespace its_start its_boot <<<"$1"
  [[ -n $its_pid && -n $its_boot ]] && _bus_place && [[ $its_host == "$host" ]] || return
  [[ $its_boot == "$boot" ]] || return 0
  [[ $its_namespace == "$namespace" ]] || return
  ! _bus_process "$its_pid" || [[ $REPLY != "$its_start" ]]
}

# What a dead holder had leased goes back, unless it was started again since it was found dead (:was): then :agent is
# null for a moment, and nobody's is given back.
_bus_give_back="update temp.sqlite_parameters set value = (select agent_id from agent_registry where agent_id = :agent
and agent_id || '|' || host || '|' || pid || '|' || pid_namespace || '|' || process_started_at || '|' || boot_id = :was)
where key = ':agent';
.read messages/give_back.sql
update temp.sqlite_parameters set value = substr(:was, 1, instr(:was, '|') - 1) where key = ':agent';"

# _bus_bury HOLDERS: gives back what the dead among them had leased; 1 when none of them is known to be dead.
_bus_bury() {
  local holder any=1
  while IFS= read -r holder; do
    _bus_is_dead "$holder" || continue
    _bus_sql write "$_bus_give_back" agent "${holder%%|*}" was "$holder" || return
    _bus_ring "$REPLY"
    any=0
  done <<<"$1"
  return $any
}

# --- the functions that are called seldom -----------------------------------------------------------------------------

initialize_agent_coordination() {
  _bus_else $_bus_elsewhere "" init >/dev/null
}

# register_agent ID TYPE MILESTONE SESSION [CAPABILITIES_JSON] [PID]: under an id that is there it is a restart
register_agent() {
  _bus_arguments 4 6 "ID TYPE MILESTONE SESSION [CAPABILITIES_JSON] [PID]" "$@" || return
  local REPLY IFS=' ' host boot namespace former operations='.read agents/register.sql'
  local -a new=(agent "$1" type "$2" milestone "$3" session "$4")
  [[ -z ${5:-} ]] || new+=(capabilities:json "$5")
  if [[ -n ${6:-} ]]; then
    _bus_number "$6" || return
    new+=(pid# "$REPLY")
    _bus_place && _bus_process "$REPLY" ||
      { _bus_fail usage "there is no process $6" "give the pid of the agent itself, or none"; return; }
    new+=(host "$host" pid_namespace "$namespace" process_started_at# "$REPLY" boot_id "$boot")
  fi
  # Of JSON the database judges payloads only: keys that stand twice, NULs and large numbers are for the bus command.
  if [[ ${5:-} == *[\{\\]* || ${5:-} =~ [0-9]{16}|[0-9][eE] ]]; then
    (exit $_bus_elsewhere)
  elif _bus_sql read '.read agents/identity.sql' agent "$1"; then
    former=${REPLY%$'\n'}
    ! _bus_is_dead "$former" || operations="$_bus_give_back"$'\n.output /dev/null\n.read agents/register.sql\n.output'
    _bus_sql write "$operations" was "$former" "${new[@]}"
  else
    (return $?)
  fi || { _bus_else $? "" register --type "$2" --milestone "$3" --session "$4" ${5:+--capabilities "$5"} \
    ${6:+--pid "$6"} -- "$1" >/dev/null; return; }
  [[ $operations == .read* ]] || _bus_ring "$REPLY"
}

# update_agent_status ID STATUS: what an agent that has ended held goes back
update_agent_status() {
  _bus_arguments 2 2 "ID STATUS" "$@" || return
  local REPLY operations=$'.output /dev/null\n.read agents/heartbeat.sql' command=heartbeat
  case $2 in
    completed | failed | terminated)
      operations=$'.read messages/give_back.sql\n.output /dev/null\n.read agents/retire.sql' command=retire
      ;;
  esac
  _bus_sql write "$operations"$'\n.output' agent "$1" status "$2" ||
    { _bus_else $? "" $command --status "$2" -- "$1" >/dev/null; return; }
  _bus_ring "$REPLY"
}

# create_agent_checkpoint ID [TYPE] [SNAPSHOT_JSON] [FILE…]: prints its id
create_agent_checkpoint() {
  _bus_arguments 1 9999 "ID [TYPE] [SNAPSHOT_JSON] [FILE…]" "$@" || return
  local REPLY LC_ALL=C rows big=x file files='' snapshot=${3-} path digest size
  local -a options=()
  [[ -n $snapshot ]] || snapshot='{}'
  for file in "${@:4}"; do
    path=$(realpath -s -- "$file" 2>/dev/null && printf x) && digest=$(sha256sum 2>/dev/null <"$file") && size=$(wc -c <"$file") ||
      { _bus_fail usage "the file $file can't be read" "name a readable file"; return; }
    options+=(--file "$file")
    _bus_literal "${path%$'\n'x}" || REPLY=null # a path that is not UTF-8
    files+="${files:+, }json_object('path', $REPLY, 'sha256', '${digest%% *}', 'size', $((size)))"
  done
  _bus_sql write '.read checkpoints/create.sql' agent "$1" type "${2:-manual}" snapshot:json "$snapshot" files# "json_array($files)" ||
    { _bus_else $? "$snapshot" checkpoint create --type "${2:-manual}" --snapshot - ${options[@]+"${options[@]}"} -- "$1"; return; }
  REPLY=${REPLY#'{"checkpoint_id":"'}
  printf '%s\n' "${REPLY%%\"*}"
}

# get_session_status SESSION: a JSON object
get_session_status() {
  _bus_arguments 1 1 SESSION "$@" || return
  local REPLY
  _bus_sql read '.read sessions/show.sql' session "$1" || { _bus_else $? "" session show --json -- "$1"; return; }
  [[ -n $REPLY ]] || { _bus_fail unknown_session; return; }
  printf %s "$REPLY"
}

# list_session_agents SESSION: a JSON array
list_session_agents() {
  _bus_arguments 1 1 SESSION "$@" || return
  local REPLY
  local -a records
  _bus_sql read $'.read sessions/show.sql\n.read agents/agents.sql' session "$1" || { _bus_else $? "" agents --session="$1" --json; return; }
  [[ -n $REPLY ]] || { _bus_fail unknown_session; return; }
  mapfile -t records <<<"${REPLY%$'\n'}"
  _bus_array "${records[@]:1}"
}

# --- recovery: it looks at processes and files, so the bus command does it ---------------------------------------------

# detect_interrupted_sessions: a line each, under a head; or one that says there are none
detect_interrupted_sessions() {
  _bus_else $_bus_elsewhere "" interrupted
}

# recover_milestone_session SESSION [OPTION]: says what is left and what can be done; with an OPTION does it
recover_milestone_session() {
  _bus_arguments 1 2 "SESSION [OPTION]" "$@" || return
  _bus_else $_bus_elsewhere "" recover ${2:+--apply "$2"} -- "$1"
}

# resume_planning_agents SESSION: the dead are marked failed, their messages go back, their commands are started again
resume_planning_agents() {
  _bus_arguments 1 1 SESSION "$@" || return
  _bus_else $_bus_elsewhere "" recover --apply resume --respawn -- "$1"
}

# complete_planning_session SESSION: when all its artifacts are there
complete_planning_session() {
  _bus_arguments 1 1 SESSION "$@" || return
  _bus_else $_bus_elsewhere "" recover --apply complete -- "$1"
}

# create_milestone_from_recovered_planning SESSION [ID]: a milestone and .milestones/active/ID.yaml, from milestone-plan
create_milestone_from_recovered_planning() {
  _bus_arguments 1 2 "SESSION [ID]" "$@" || return
  _bus_else $_bus_elsewhere "" recover --apply create-milestone ${2:+--milestone "$2"} -- "$1"
}

# start_session_monitor [SECONDS]: in the background; it logs to .milestones/logs/session-monitor.log
start_session_monitor() {
  _bus_else $_bus_elsewhere "" monitor --detach --interval="${1:-300}"
}

# stop_session_monitor: 1 when none runs
stop_session_monitor() {
  _bus_else $_bus_elsewhere "" monitor --stop
}

# cleanup_stale_coordination [MINUTES]: marks failed who, and what, was silent for so long (else session_timeout)
cleanup_stale_coordination() {
  local REPLY
  [[ -z ${1:-} ]] || _bus_number "$1" || return
  _bus_else $_bus_elsewhere "" cleanup --stale${1:+="${REPLY}m"}
}

# cleanup_failed_sessions [HOURS]: abandons those that failed so long ago (else failed_session_hours)
cleanup_failed_sessions() {
  local REPLY
  [[ -z ${1:-} ]] || _bus_number "$1" || return
  _bus_else $_bus_elsewhere "" cleanup --failed${1:+="${REPLY}h"}
}

# get_session_recovery_status: a JSON object: total, active, completed, failed, abandoned, stale, of the last 7 days
get_session_recovery_status() {
  _bus_else $_bus_elsewhere "" session counts --json
}

show_recovery_help() {
  cat <<'END'
After a crash:
  detect_interrupted_sessions                    which sessions do not go on by themselves
  recover_milestone_session SESSION              what is left of one, and what can be done
  recover_milestone_session SESSION OPTION       do it: complete, resume, restart, create-milestone, abandon
Planning sessions:
  resume_planning_agents SESSION                 give back what the dead held, start their commands again
  complete_planning_session SESSION              when all artifacts are there
  create_milestone_from_recovered_planning SESSION [ID]
                                                 a milestone from milestone-plan, and .milestones/active/ID.yaml
Before the next one:
  start_session_monitor [SECONDS]                every 300 s, and when a process dies; logs to
  stop_session_monitor                           .milestones/logs/session-monitor.log
  cleanup_stale_coordination [MINUTES]           mark failed what was silent for so long
  cleanup_failed_sessions [HOURS]                abandon what failed so long ago
  get_session_recovery_status                    counts of the last 7 days, as JSON
END
}
