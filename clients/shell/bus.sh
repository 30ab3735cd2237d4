# shellcheck shell=bash disable=SC2015,SC2016,SC2119,SC2120,SC2154 # variables of the caller are set and read
# bus.sh: the functions of shell agents. Use: source "$(bus shell)"
#
# They run the SQL files of schemas/operations as they stand: through sqlite3 where it is on the path (3.38 or newer),
# else through the bus command, which is also asked for what SQL alone can't do (waiting, upgrades, deep JSON). One call
# is one transaction. Everything else here is quoting: values travel as SQL text on standard input, never as arguments.
#
# Functions return the exit statuses of the bus command and print errors as one line on stderr. BUS_URL names the bus
# (else the nearest .milestones/coordination.db), BUS_COMMAND the bus command; BUS_SHELL_VIA=bus does without sqlite3.
# Needs bash 4.2 or newer. Local variables begin with _, but for REPLY, IFS and LC_ALL: so a caller may make its own
# read-only, but not these.
#
# What bash reads costs time, so that this file has what every script needs. The functions that are declared in a line
# come from bus_mailbox.sh and bus_seldom.sh, read when one of them is first called.

case ${BASH_VERSION-} in
  4.[2-9]* | [5-9]* | [1-9][0-9].*) ;;
  *) echo "bus: these functions need bash 4.2 or newer; source them there" >&2; return 64 ;;
esac
_bus_here=${BASH_SOURCE[0]}
[[ ! -L $_bus_here ]] || _bus_here=$(exec readlink -f -- "$_bus_here")
[[ $_bus_here == /* ]] || _bus_here=$PWD/$_bus_here
_bus_here=${_bus_here%/*}
_bus_schemas=$_bus_here/../../schemas
[[ -d $_bus_schemas/operations ]] || _bus_schemas=$_bus_here/../bus/schemas
_bus_newest=3 # of schemas/sqlite; a caller may have turned off the globbing that would find it
_bus_queue=0 # so many of the next writes wait for their turn at once
_bus_writes=0 _bus_bell='' _bus_options=() # and never what a caller's environment says
_bus_elsewhere=125 # answered by a function that could not do it with sqlite3: the bus command must

# Called by a function that is only declared: reads the file, and calls the function again.
# shellcheck disable=SC1091
_bus_mailbox() { source "$_bus_here/bus_mailbox.sh" && "${FUNCNAME[1]}" "$@"; }
# shellcheck disable=SC1091
_bus_seldom() { source "$_bus_here/bus_seldom.sh" && "${FUNCNAME[1]}" "$@"; }
get_agent_messages() { _bus_mailbox "$@"; }
receive_agent_message() { _bus_mailbox "$@"; }
ack_agent_message() { _bus_mailbox "$@"; }
release_agent_message() { _bus_mailbox "$@"; }
_bus_duration() { _bus_mailbox "$@"; }
_bus_fail() { _bus_seldom "$@"; }
_bus_else() { _bus_seldom "$@"; }
_bus_explain() { _bus_seldom "$@"; }
_bus_failed() { _bus_seldom "$@"; }
_bus_unsafe() { _bus_seldom "$@"; }
_bus_upward() { _bus_seldom "$@"; }
_bus_moved() { _bus_seldom "$@"; }
_bus_in_turn() { _bus_seldom "$@"; }
_bus_checkpoint() { _bus_seldom "$@"; }
_bus_relieve() { _bus_seldom "$@"; }
initialize_agent_coordination() { _bus_seldom "$@"; }
register_agent() { _bus_seldom "$@"; }
update_agent_status() { _bus_seldom "$@"; }
create_agent_checkpoint() { _bus_seldom "$@"; }
get_session_status() { _bus_seldom "$@"; }
list_session_agents() { _bus_seldom "$@"; }
detect_interrupted_sessions() { _bus_seldom "$@"; }
recover_milestone_session() { _bus_seldom "$@"; }
resume_planning_agents() { _bus_seldom "$@"; }
complete_planning_session() { _bus_seldom "$@"; }
create_milestone_from_recovered_planning() { _bus_seldom "$@"; }
start_session_monitor() { _bus_seldom "$@"; }
stop_session_monitor() { _bus_seldom "$@"; }
cleanup_stale_coordination() { _bus_seldom "$@"; }
cleanup_failed_sessions() { _bus_seldom "$@"; }
get_session_recovery_status() { _bus_seldom "$@"; }
show_recovery_help() { _bus_seldom "$@"; }

# _bus_arguments LEAST MOST WORDS ARGUMENT…: whether so many were given, and the first of them says something.
_bus_arguments() {
  (($# - 3 >= $1 && $# - 3 <= $2)) && [[ -n $4 ]] || _bus_fail usage "${FUNCNAME[1]} takes $3" "its head in $_bus_here says more"
}

# _bus_number TEXT: a whole number, in REPLY without its leading zeros.
_bus_number() {
  [[ -n $1 && $1 != *[!0123456789]* ]] && ((${#1} <= 18)) ||
    { _bus_fail usage "not a whole number: ${1:0:40}" "write digits"; return; }
  REPLY=$((10#$1))
}

# _bus_print TEXT: a line of it.
_bus_print() { printf '%s\n' "$1" 2>/dev/null || _bus_fail fault "standard output can't be written" "give it a reader"; }

# What nobody could be told of must not be done.
_bus_stdout() {
  [[ -e /dev/fd/1 || ! -d /dev/fd/ ]] || _bus_fail fault "standard output is closed" "leave it open, or send it to a file"
}

# --- where the bus is -------------------------------------------------------------------------------------------------

# Sets _bus_file and _bus_synchronous when sqlite3 can be used on it; else says what is wrong.
_bus_locate() {
  local _file=${BUS_URL:-} _up=.
  if [[ -z $_file ]]; then
    _file=$PWD
    until [[ -e $_up/.milestones/coordination.db || -L $_up/.milestones/coordination.db ]]; do
      [[ -e $_up/.. && ! $_up -ef / ]] || { _bus_fail no_bus; return; }
      _file=${_file%/*} _up+=/..
    done
    [[ $_file/ -ef $_up ]] || _file=$(exec readlink -f "$_up") || { _bus_fail no_bus; return; } # $PWD goes through a link
    _file+=/.milestones/coordination.db
  fi
  _bus_synchronous=full
  [[ $_file != *'?synchronous=normal' ]] || _bus_synchronous=normal
  _file=${_file%"?synchronous=$_bus_synchronous"}
  _file=${_file#sqlite:///}
  # Other schemes, and what means something in a file: URI.
  [[ -n $_file && $_file != *[?%#]* && $_file != sqlite:* && $_file != *://* && $_file != [~:]* &&
    ${BUS_SHELL_VIA:-sqlite3} == sqlite3 ]] || return "$_bus_elsewhere"
  [[ $_file != */../* ]] || _bus_upward
  [[ $_file == /* ]] || _file=$PWD/$_file
  _bus_file=$_file
  [[ -f $_file && ! -L $_file && -O $_file && -r $_file && -w $_file && -w ${_file%/*}/ ]] && ! _bus_is_mounted ||
    _bus_unsafe
}

# Whether the file is mounted without its folder; see bus/store/files.py. Bash has no locks that closing it could drop.
_bus_is_mounted() {
  local -a _of_file=() _of_folder=()
  { mapfile -t _of_file </proc/self/fdinfo/9; } 9<"$_bus_file"
  { mapfile -t _of_folder </proc/self/fdinfo/9; } 9<"${_bus_file%/*}/"
  [[ -n ${_of_file[2]:-} && -n ${_of_folder[2]:-} && ${_of_file[2]} != "${_of_folder[2]}" ]] # mnt_id, if it can be told
} 2>/dev/null

# --- values as SQL ----------------------------------------------------------------------------------------------------

# _bus_literal TEXT: an SQL literal of it, in REPLY; fails for what is not UTF-8, which SQLite would take. The shell of
# SQLite drops a CR before a LF, so that CRs go by a name that the text does not contain, and which can't arise where it
# is put in. Bash is slow at replacing in long texts: one of those is read by SQLite itself, from `_big`.
_bus_literal() {
  local _text=$1 _quote="'" _quotes="''" _return=$'\r' _number=$RANDOM$RANDOM # which nobody can know before
  [[ $_text != *[$'\x80'-$'\xff']* ]] || command iconv -f utf-8 -t utf-16 <<<"$_text" &>/dev/null || return
  if ((${#_text} > 100000)) && [[ -z $_big ]]; then # bash passes short ones through a pipe, which readfile() can't read
    _big=$_text
    REPLY="cast(substr(readfile('/dev/fd/3'), 1, ${#_text}) as text)"
    return
  fi
  _text=${_text//$_quote/$_quotes}
  REPLY="'$_text'"
  [[ $_text == *"$_return"* ]] || return 0
  while [[ $_text == *"<$_number>"* ]]; do ((++_number)); done
  REPLY="replace('${_text//$_return/<$_number>}', '<$_number>', char(13))"
}

# _bus_parts TEXT SIGNS: what stands between the signs, in `_parts`; of newlines and spaces the empty parts are left out.
# (`read` and `mapfile` would ask the system for every byte.)
_bus_parts() {
  local IFS=$2 _flags=$-
  set -f
  # shellcheck disable=SC2206,SC2034  # split it shall be
  _parts=($1)
  [[ $_flags == *f* ]] || set +f
}

# _bus_document TEXT: whether SQL can judge this JSON. Lone surrogates and deep nesting are for the bus command.
_bus_document() {
  [[ $1 != *\\u[dD][89abABc-fC-F]* ]] || return 1
  ((${#1} > 64)) || return 0
  local -a _parts
  _bus_parts "$1" '[{'
  ((${#_parts[@]} <= 64))
}

# --- running the SQL files --------------------------------------------------------------------------------------------

# Whether the shell sees bytes, and not signs of several. Where LC_ALL names a locale that is not there it does, and would
# complain each time that a function sets that back: so it is set only where it matters.
_bus_bytes() { [[ $'\xc3\xa9' == ?? && $'\xe9' != [[:alpha:]] ]]; }

# _bus_sql write|read SCRIPT [KEY TEXT | KEY:json JSON | KEY# SQL]…: runs a script of sqlite3 in one transaction, in the
# folder of the operations, with parameters; the output, whole, in REPLY. Only a bus of this version is touched, and only
# by a SQLite that knows what it needs. Returns _bus_elsewhere where the bus command must do it.
#
# A turn that began here would last as long as the process, ten times as long as the transaction. So a writer tries for 3 ms
# without one. Who finds others at work queues on the turnstile, just before it begins, and for its next writes at once.
#
# Where somebody waits at the doorbell `_bus_bell`, sqlite3 rings it: it opens the file when it has committed, and the end
# of its process closes it, and leaves the turnstile. `_bus_bell` is empty then. The # keeps the shell from dropping
# newlines at the end of what comes before it. The exit by a status of its own says that the script came to its end; the
# schema is not taken down piece by piece then.
_bus_sql() {
  _bus_bytes || local LC_ALL=C
  local _script=$2 _rows _big='' _at _key _value _begin='begin;' _names='' _checkpoint='' _ring='' _size _output _status=0
  local _began=${SECONDS:-0} # a caller may have unset it
  local _operations=${_bus_schemas//\\/\\\\}/operations
  _operations=${_operations//\"/\\\"}
  _bus_locate || return
  _rows="strftime('%Y-%m-%d %H:%M:%f', 'now')"
  [[ -z ${BUS_NOW:-} ]] || _bus_moved
  for ((_at = 3; _at < $#; _at += 2)); do
    _key=${!_at} _value=$((_at + 1))
    REPLY=${!_value}
    [[ $_key != *:json ]] || _bus_document "$REPLY" || return "$_bus_elsewhere"
    [[ $_key == *'#' ]] || _bus_literal "$REPLY" || return "$_bus_elsewhere"
    _rows+="), (':${_key%%[#:]*}', $REPLY"
  done
  # Under two names it would have two WALs, and lose what is written through the other one. A WAL beside it says that this
  # is the name it goes by; else a process of its own looks while sqlite3 starts.
  [[ -e $_bus_file-wal ]] || _names='.read /dev/fd/4'
  if [[ $1 == write ]]; then
    # About each 16th write, also in $(…), whose count is lost: pids that rise by any step come around by the golden ratio.
    _bus_writes=$((_bus_writes + 1))
    ((${#_rows} + ${#_big} <= 65536 && (_bus_writes + (BASHPID * 40503 >> 12)) % 16)) ||
      ! _size=$(exec stat -c %s "$_bus_file-wal" 2>/dev/null) || ((_size <= 512 << 10)) || _bus_checkpoint
    _begin=$'.timeout 3\nbegin immediate;'
    ((!_bus_queue)) && [[ -z $_checkpoint ]] || _bus_in_turn
    [[ $_bus_file$_bus_bell == *[!A-Za-z0-9\ /._:@=+,-]* ]] || ! _bus_hangs "$_bus_bell" ||
      _ring=$'.bail off\n.output "'$_bus_file.bells/$_bus_bell$'"\n'
  fi
  _output=$(
    umask 077
    export LC_ALL=C
    [[ -z $_checkpoint ]] || export BUS_FILE=$_bus_file BUS_OPEN=$_checkpoint
    set +x # a trace would be taken for output
    [[ -z $_big ]] || { exec 3<<<"$_big" || exit; } 2>&1
    [[ -z $_names ]] || _bus_links
    [[ $_begin != .read* || -L $_bus_file.turn ]] || { command exec 5<>"$_bus_file.turn" || exec 5>&-; } 2>/dev/null
    exec sqlite3 -batch -bail -init /dev/null ${_bus_options[@]+"${_bus_options[@]}"} "file://$_bus_file?mode=rw" 2>&1 <<END
.timeout 5000
.output /dev/null
.dbconfig no_ckpt_on_close on
$_names
pragma temp_store = memory;
pragma wal_autocheckpoint = 0;
pragma journal_size_limit = 524288;
pragma synchronous = $_bus_synchronous;
.parameter init
.output
.cd "$_operations"
$_begin
insert into temp.sqlite_parameters (key, value) values ((select iif(user_version = $_bus_newest
  and application_id = 1098146163 and cast(substr(sqlite_version(), 3) as real) >= 38, ':now', json('another ' || user_version))
  from pragma_user_version, pragma_application_id), $_rows);
$_script
commit;
.print #
$_ring.exit 3
END
  ) || _status=$?
  ((${SECONDS:-0} - _began < 2)) || _bus_queue=0 # somebody stopped with the turn
  ((_status == 3)) || { _bus_failed "$_output" "${@:3}" || return; _bus_sql "$@"; return; }
  [[ -z $_ring ]] || _bus_bell=''
  REPLY=${_output%'#'*}
}

# Begins a look at how many names the file has, to be read from descriptor 4. Before bash 5.1 posix mode knows no <(…), nor
# reads a file that has one.
_bus_links() {
  set +o posix
  eval $'exec 4< <(exec stat -c "select iif(%h = 1, 1, json(\'names\'));" -- "$_bus_file" 2>/dev/null)'
}

# _bus_hangs BELL: whether it hangs there, in a folder of ours, and is no link that somebody put there
_bus_hangs() {
  local _bells=$_bus_file.bells
  [[ -n $1 && $1 != */* && -f $_bells/$1 && ! -L $_bells/$1 && ! -L $_bells && -O $_bells ]]
}

# _bus_ring "ID|ADDRESS…": wakes whoever waits at these addresses; see bus/store/doorbell.py.
_bus_ring() {
  _bus_bytes || local LC_ALL=C
  local _rows=$1 _bell
  while [[ $_rows == *'|'* ]]; do
    _bell=${_rows%%$'\n'*}'|' _rows=${_rows#"${_rows%%$'\n'*}"}
    _rows=${_rows#$'\n'} _bell=${_bell#*'|'}
    _bell=${_bell%%'|'*}
    ! _bus_hangs "$_bell" || : >|"$_bus_file.bells/$_bell" || :
  done 2>/dev/null
}

# --- the functions ----------------------------------------------------------------------------------------------------

# save_agent_state ID KEY VALUE [TYPE] [TTL]
save_agent_state() {
  _bus_arguments 3 5 "ID KEY VALUE [TYPE] [TTL]" "$@" || return
  local REPLY IFS=' ' _bus_bell=state=$1
  local -a _more=()
  [[ -z ${4:-} ]] || _more+=(type "$4")
  [[ -z ${5:-} ]] || { _bus_duration "$5" && _more+=(ttl# "$REPLY"); } || return
  _bus_sql write '.read state/save.sql' agent "$1" key "$2" value "$3" ${_more[@]+"${_more[@]}"} ||
    { _bus_else $? "$3" state save ${4:+"--type=$4"} ${5:+"--ttl=$5"} -- "$1" "$2" - >/dev/null; return; }
  _bus_ring "|$_bus_bell"
}

# load_agent_state ID KEY: prints the value and a newline; 1 when there is none
load_agent_state() {
  _bus_arguments 2 2 "ID KEY" "$@" || return
  local REPLY _minor
  local -a _bus_options=()
  _bus_load "$@" || { _bus_else $? "" state load -- "$1" "$2"; return; }
  _minor=${REPLY##*$'\n'} _minor=${_minor#*.}
  # From 3.50 on sqlite3 writes control characters as ^A, unless told not to; before, it does not know the option.
  if ((${_minor%%.*} >= 50)) && [[ $REPLY == *^* || $REPLY == *$'\xe2\x90'* ]]; then
    _bus_options=(-escape off)
    _bus_load "$@" || return
  fi
  [[ $REPLY == *$'\n'* ]] || return 1
  REPLY=${REPLY%$'\n'*}
  _bus_print "${REPLY%$'\n'*}"
}

# _bus_load ID KEY: the value, which may be empty, its version and that of SQLite, each on a line.
_bus_load() {
  _bus_sql read $'.separator "\\n"\n.read state/load.sql\nselect sqlite_version();' agent "$1" key "$2" || return
  REPLY=${REPLY%$'\n'}
}

# The digest of a payload, as bus/digests.py makes it; invalid JSON is refused later, in better words.
_bus_digest="insert into temp.sqlite_parameters (key, value)
select ':digest', iif(json_valid(value), substr(lower(hex(sha3(json(value), 256))), 1, 16), null)
from temp.sqlite_parameters where key = ':payload';
"

# send_agent_message FROM TO TYPE PAYLOAD [PRIORITY]: prints the id, for '*' an id a line; 1 when nobody is there
send_agent_message() {
  _bus_arguments 4 5 "FROM TO TYPE PAYLOAD [PRIORITY]" "$@" && _bus_stdout || return
  local REPLY _priority=${5:-5} _operation=messages/send _bus_bell=$2 _digit='[0123456789abcdef]'
  local -a _context=()
  _bus_number "${_priority#-}" || return
  [[ $_priority != -* ]] || REPLY=-$REPLY
  _priority=$REPLY
  # What is no W3C trace context counts as not there, as the standard says.
  [[ ${TRACEPARENT:-} != 00-* || ! $TRACEPARENT =~ ^00-($_digit{32})-($_digit{16})-$_digit{2}$ ||
    -z ${BASH_REMATCH[1]//0} || -z ${BASH_REMATCH[2]//0} ]] || _context=(traceparent "$TRACEPARENT")
  [[ $2 != '*' ]] || _operation=messages/broadcast _bus_bell=''
  _bus_sql write "$_bus_digest.read $_operation.sql" from "$1" to "$2" type "$3" payload:json "$4" priority# "$_priority" \
    ${_context[@]+"${_context[@]}"} ||
    { _bus_else $? "$4" send --from "$1" --priority "$_priority" -- "$2" "$3" -; return; }
  [[ -n $REPLY ]] || return 1
  [[ $_bus_bell != "$2" && $2 != '*' ]] || _bus_ring "$REPLY"
  while [[ -n $REPLY ]]; do
    _bus_print "${REPLY%%'|'*}" || return
    REPLY=${REPLY#*$'\n'}
  done
}
