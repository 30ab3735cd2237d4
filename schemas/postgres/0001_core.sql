-- The bus on PostgreSQL: the same tables, columns and rules as schemas/sqlite/0001_core.sql, under the same number.
--
-- It is run with search_path set to the schema of the bus, as one text. Every function remembers that path, so that the
-- rules hold for every writer, whatever the path of theirs. What a trigger raises has SQLSTATE AB000 and begins with a
-- stable code; a constraint is named after its code; invalid JSON is refused by the type itself.
--
-- So that the texts of schemas/operations run here too, the functions of SQLite that they call exist here under the same
-- names (strftime, julianday, json_each, iif, …). Moments are `timestamptz`, in whole milliseconds.

-- Kinds of values. A constraint's name is the code of its refusal.

create domain moment as timestamptz(3)
  constraint invalid_moment check (value >= '0001-01-01 00:00:00+00' and value < '10000-01-01 00:00:00+00');
create domain identifier as text collate "C"
  constraint invalid_id check (value ~ '^[A-Za-z0-9_:][A-Za-z0-9._:@-]{0,127}$');
create domain state_key as text collate "C"
  constraint invalid_key check (value ~ '^[A-Za-z0-9_:/][A-Za-z0-9._:@/-]{0,127}$');
-- W3C trace context: 00-<trace id>-<span id>-<flags>.
create domain trace_context as text constraint invalid_traceparent check (
  value ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$' and value !~ '^00-(0{32}|.{32}-0{16})-');

-- What SQLite calls so. They are inlined into the query that calls them.

create function iif(boolean, anycompatible, anycompatible) returns anycompatible language sql immutable
  as 'select case when $1 then $2 else $3 end';
create function min(anycompatible, anycompatible) returns anycompatible language sql immutable
  as 'select case when $1 is not null and $2 is not null then least($1, $2) end';
create function max(anycompatible, anycompatible) returns anycompatible language sql immutable
  as 'select case when $1 is not null and $2 is not null then greatest($1, $2) end';
create function instr(text, text) returns integer language sql immutable
  as 'select strpos($1, $2)';
-- What the operations' strftime('%Y-%m-%d %H:%M:%f', …) is rendered as: a moment, changed by so many seconds, minutes,
-- hours or days.
create function moment_at(at timestamptz, change text default '0 seconds') returns timestamptz
language sql stable as $$
  select (at + split_part(change, ' ', 1)::double precision * case split_part(change, ' ', 2)
    when 'days' then interval '24 hours' when 'hours' then interval '1 hour' when 'minutes' then interval '1 minute'
    else interval '1 second' end)::timestamptz(3)
$$;
create function moment_at(at text) returns timestamptz language sql stable
  as $$select (case when right(at, 1) = 'Z' then at else at || 'Z' end)::timestamptz(3)$$;
create function julianday(timestamptz) returns double precision language sql stable
  as 'select extract(epoch from $1)::double precision / 86400.0 + 2440587.5';
-- A moment as text, with the space before the time replaced.
create function replace(timestamptz, text, text) returns text language sql stable
  as $$select pg_catalog.replace(to_char($1 at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS'), $2, $3)$$;

-- strftime and datetime, for queries written by hand. What datetime tells is a moment, so that columns compare with it;
-- `date` and `time` are PostgreSQL's own.
create function moment_read(told text) returns timestamptz language sql stable as $$
  select case when lower(told) = 'now' then statement_timestamp()::timestamptz(3)
    else (told || case when told ~ '(Z|[+-][0-9][0-9]:[0-9][0-9])$' then '' else 'Z' end)::timestamptz(3) end
$$;
create function moment_changed(told timestamptz, changes text[]) returns timestamptz language plpgsql stable as $$
declare
  change text;
begin
  foreach change in array changes loop
    if change ~ '^[+-]?[0-9]+([.][0-9]+)? (second|minute|hour|day)s?$' then
      told := told + split_part(change, ' ', 1)::double precision * case rtrim(split_part(change, ' ', 2), 's')
        when 'day' then interval '24 hours' when 'hour' then interval '1 hour' when 'minute' then interval '1 minute'
        else interval '1 second' end;
    elsif change ~ '^start of (day|month|year)$' then
      told := date_trunc(split_part(change, ' ', 3), told, 'UTC');
    elsif change is null then
      return null;
    else
      raise exception 'invalid_value: a moment is changed by ±N seconds, minutes, hours or days, or to the start of '
        'day, month or year, not by %', quote_literal(change) using errcode = 'AB000';
    end if;
  end loop;
  return told::timestamptz(3);
end $$;
create function strftime(format text, told timestamptz, variadic changes text[] default '{}') returns text
language plpgsql stable set search_path from current as $$
declare
  utc timestamp := moment_changed(told, changes) at time zone 'UTC';
  part text;
  written text := '';
begin
  for part in select piece[1] from regexp_matches(format, '%.?|[^%]+', 'g') as pieces (piece) loop
    written := written || case
      when part !~ '^%' then part
      when part = '%Y' then to_char(utc, 'YYYY')
      when part = '%m' then to_char(utc, 'MM')
      when part = '%d' then to_char(utc, 'DD')
      when part = '%H' then to_char(utc, 'HH24')
      when part = '%M' then to_char(utc, 'MI')
      when part = '%S' then to_char(utc, 'SS')
      when part = '%f' then to_char(utc, 'SS.MS')
      when part = '%j' then to_char(utc, 'DDD')
      when part = '%s' then floor(extract(epoch from utc))::text
      when part = '%w' then extract(dow from utc)::text
      when part = '%W' then to_char(div(extract(doy from utc) + 7 - extract(isodow from utc), 7), 'FM00')
      when part = '%%' then '%' end;
    if written is null and utc is not null then
      raise exception 'invalid_value: % is not of the formats %%Y %%m %%d %%H %%M %%S %%f %%s %%j %%w %%W %%%%', part
        using errcode = 'AB000';
    end if;
  end loop;
  return case when utc is not null then written end;
end $$;
create function strftime(format text, told text, variadic changes text[] default '{}') returns text
language plpgsql stable set search_path from current
as $$begin return strftime(format, moment_read(told), variadic changes); end$$;
create function datetime(told timestamptz, variadic changes text[] default '{}') returns timestamptz
language plpgsql stable set search_path from current
as $$begin return date_trunc('second', moment_changed(told, changes)); end$$;
create function datetime(told text default 'now', variadic changes text[] default '{}') returns timestamptz
language plpgsql stable set search_path from current
as $$begin return datetime(moment_read(told), variadic changes); end$$;

-- A moment as RFC 3339.
create function moment_text(timestamptz) returns text language sql stable
  as $$select to_char($1 at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')$$;

-- Of arrays.
create function json_each(document jsonb) returns table (key bigint, value jsonb)
language sql immutable rows 10 as $$
  select place - 1, value from jsonb_array_elements(document) with ordinality a (value, place)
$$;
create function json_each(document text) returns table (key bigint, value text)
language sql immutable rows 10 as $$
  select place - 1, value from json_array_elements_text(document::json) with ordinality a (value, place)
$$;

create function json_group_more(text, anyelement) returns text language sql immutable
  as $$select coalesce($1 || ', ', '') || coalesce(to_json($2)::text, 'null')$$;
create function json_group_end(text) returns json language sql immutable
  as $$select ('[' || coalesce($1, '') || ']')::json$$;
create aggregate json_group_array(anyelement) (sfunc = json_group_more, stype = text, finalfunc = json_group_end);
create function json_group_pair(text, text, anyelement) returns text language sql immutable
  as $$select coalesce($1 || ', ', '') || to_json($2)::text || ': ' || coalesce(to_json($3)::text, 'null')$$;
create function json_group_close(text) returns json language sql immutable
  as $$select ('{' || coalesce($1, '') || '}')::json$$;
create aggregate json_group_object(text, anyelement) (sfunc = json_group_pair, stype = text, finalfunc = json_group_close);

-- Documents: JSON whose keys are unique and whose numbers have 64 bits. Escaped NULs and lone surrogates are refused by
-- the cast to jsonb.

create function json_nodes(document json) returns table (value json) language sql immutable as $$
  with recursive nodes (value) as (
    select document
    union all
    select deeper.value from nodes, lateral (
      select o.value
      from pg_catalog.json_each(case when json_typeof(nodes.value) = 'object' then nodes.value else '{}' end) o
      union all
      select a.value
      from json_array_elements(case when json_typeof(nodes.value) = 'array' then nodes.value else '[]' end) a) deeper)
  select value from nodes
$$;
create function json_number_fits(number text) returns boolean language sql immutable as $$
  select case
    when length(number) > 16000 or number ~ '[eE][+-]?0*[1-9][0-9]{3}' then false
    when number ~ '[.eE]' then abs(number::numeric) < 1.797693134862315807e308
    else number::numeric between -9223372036854775808 and 9223372036854775807 end
$$;
do $do$
begin
  if current_setting('server_version_num')::integer >= 160000 then
    create function json_has_unique_keys(document json) returns boolean language sql immutable
      as 'select document is json with unique keys';
  else
    execute format($format$
      create function json_has_unique_keys(document json) returns boolean language sql immutable
      set search_path = %I, pg_temp as $$
        select not exists (
          select 1 from json_nodes(document) n where json_typeof(n.value) = 'object'
            and (select count(*) <> count(distinct o.key) from pg_catalog.json_each(n.value) o))
      $$ $format$, current_schema());
  end if;
end $do$;

create function document_check(document json, most double precision) returns jsonb language plpgsql immutable as $$
declare
  read jsonb;
begin
  if octet_length(document::text) > most then
    raise exception 'payload_too_large' using errcode = 'AB000';
  end if;
  if document::text ~ '[0-9]{19}|[0-9.][eE]' then
    if exists (
        select 1 from json_nodes(document)
        where json_typeof(value) = 'number' and not json_number_fits(value #>> '{}')) then
      raise exception 'invalid_json: a number beyond 64 bits' using errcode = 'AB000';
    end if;
  end if;
  read := document;  -- what it can't read it refuses: NULs, lone surrogates
  if not json_has_unique_keys(document) then
    raise exception 'invalid_json: a key stands twice' using errcode = 'AB000';
  end if;
  return read;
end $$;

-- JSON that the bus keeps beside payloads: what no reader could rely on is refused.
create function note_is_sound(document json) returns boolean language sql immutable strict set search_path from current
  as $$select document_check(document, 'infinity') is not null$$;
create domain note as json constraint invalid_json check (note_is_sound(value));

create function artifacts_are_sound(artifacts json) returns boolean language sql immutable as $$
  select not exists (
    select 1 from json_array_elements(case when json_typeof(artifacts) = 'array' then artifacts else '[]' end) a (value)
    where json_typeof(value -> 'key') is distinct from 'string' or case json_typeof(value -> 'weight') when 'number'
      then (value ->> 'weight')::numeric not between 1e-9 and 1e6 else true end)
$$;
create function references_are_sound(files json) returns boolean language sql immutable as $$
  select not exists (
    select 1 from json_array_elements(case when json_typeof(files) = 'array' then files else '[]' end) f (value)
    where (json_typeof(value -> 'path'), json_typeof(value -> 'sha256'), json_typeof(value -> 'size'))
      is distinct from ('string', 'string', 'number') or (value ->> 'size') ~ '[.eE]')
$$;

-- The enums, as rows: a project adds its own with `bus types add`, and anything else is refused.

create table agent_types (
  name        identifier primary key,
  description text not null default ''
);

create table message_types (
  name        identifier primary key,
  description text not null default '',
  schema      json not null default '{"type":"object"}'
    constraint invalid_json check (json_typeof(schema) = 'object')
);

create table state_types (
  name        identifier primary key,
  description text not null default ''
);

create table operation_types (
  name        identifier primary key,
  description text not null default '',
  artifacts   note not null default '[]'  -- [{"key": state key, "weight": share of the progress}, …]
    constraint invalid_json check (json_typeof(artifacts) = 'array')
    constraint invalid_value check (artifacts_are_sound(artifacts))
);

insert into agent_types (name, description) values
  ('milestone-coordinator', 'plans a milestone and hands out its tasks'),
  ('milestone-executor', 'takes tasks and does them'),
  ('milestone-planner', 'breaks a goal into a milestone'),
  ('scope-analyzer', 'planning: what belongs to the work'),
  ('estimation-agent', 'planning: how long it takes'),
  ('risk-assessor', 'planning: what may go wrong'),
  ('kiro-strategy', 'planning: design, spec, task, execute'),
  ('planning-aggregator', 'planning: puts the parts together'),
  ('design-phase', 'execution: the design'),
  ('spec-phase', 'execution: the specification'),
  ('task-phase', 'execution: the list of tasks'),
  ('execute-phase', 'execution: the work itself'),
  ('git-operations', 'branches, commits, merges'),
  ('progress-tracker', 'watches and reports progress'),
  ('validation', 'checks results'),
  ('feature-implementation', 'builds one feature'),
  ('retry-handler', 'tries again what failed');

insert into state_types (name, description) values
  ('checkpoint', 'where a piece of work stands'),
  ('progress', 'how far it is'),
  ('user_data', 'anything else (the default)'),
  ('system_data', 'kept by tools'),
  ('temp_data', 'may be thrown away');

insert into operation_types (name, description, artifacts) values
  ('planning', 'make a milestone plan',
   '[{"key":"planning-scope","weight":20},{"key":"planning-estimates","weight":20},{"key":"planning-risks","weight":20},{"key":"planning-kiro","weight":20},{"key":"milestone-plan","weight":20}]'),
  ('execution', 'carry a milestone out',
   '[{"key":"design-phase-results","weight":15},{"key":"spec-phase-results","weight":25},{"key":"task-phase-results","weight":20},{"key":"execute-phase-results","weight":40}]'),
  ('validation', 'check what was done', '[]'),
  ('recovery', 'bring work back', '[]'),
  ('cleanup', 'tidy up', '[]');

create table agent_coordination_config (
  key         text collate "C" primary key constraint invalid_key check (key <> ''),
  value       text not null,
  description text not null default '',
  updated_at  moment not null default clock_timestamp()
);

insert into agent_coordination_config (key, value, description) values
  ('heartbeat_interval', '30', 'seconds between the heartbeats of an idle agent'),
  ('message_retry_limit', '3', 'redeliveries of a message before it is dead'),
  ('session_timeout', '1800', 'seconds without activity after which a session counts as stale'),
  ('checkpoint_interval', '300', 'seconds between automatic checkpoints, for tools that make them; the bus makes none'),
  ('health_check_interval', '60', 'seconds between health checks, for tools that make them; `bus monitor` has --interval'),
  ('cleanup_retention_days', '7', 'days that acknowledged messages are kept'),
  ('lease_seconds', '30', 'seconds a message is leased for, unless the receiver says otherwise'),
  ('interrupted_after', '300', 'seconds without activity after which an active session counts as interrupted'),
  ('stale_after', '1800', 'seconds without heartbeat after which an agent counts as dead that gave no process, or is elsewhere'),
  ('failed_session_hours', '24', 'hours after which cleanup abandons a failed session'),
  ('max_payload_bytes', '1048576', 'largest payload or snapshot, in bytes of JSON'),
  ('priority_aging_seconds', '0', 'seconds of waiting that are worth one level of priority; 0: strict priority'),
  ('advise_milestones', '25', 'milestones from which `bus status` calls PostgreSQL worth a thought'),
  ('advise_milestones_strongly', '100', 'milestones from which `bus status` recommends PostgreSQL'),
  ('advise_agents', '5', 'concurrent agents from which `bus status` calls PostgreSQL worth a thought'),
  ('advise_agents_strongly', '20', 'concurrent agents from which `bus status` recommends PostgreSQL'),
  ('advise_writes_per_second', '200', 'messages sent and acknowledged a second from which `bus status` recommends PostgreSQL'),
  ('advise_busy_percent', '50', 'percentage of the time in which somebody writes from which `bus status` recommends PostgreSQL');

-- 100 years at most, in the unit of the key: so long a duration may be. What is counted is whole.
create function agent_coordination_config_numbers() returns trigger language plpgsql as $$
begin
  if old.value ~ '^[0-9.]+$' and (new.value !~ '^([0-9]+\.?[0-9]*|\.[0-9]+)$' or length(new.value) > 40
      or new.value::numeric > case when new.key like '%\_days' then 36600 when new.key like '%\_hours' then 878400
        else 3162240000 end
      or (new.key = 'lease_seconds' and new.value::numeric < 0.001)
      or (new.value like '%.%' and new.key in ('message_retry_limit', 'max_payload_bytes', 'advise_milestones',
        'advise_milestones_strongly', 'advise_agents', 'advise_agents_strongly'))) then
    raise exception 'invalid_value: this setting is a number, 0 to 100 years; counts are whole, and a lease takes some time'
      using errcode = 'AB000';
  end if;
  return new;
end $$;
create trigger agent_coordination_config_numbers before update of value on agent_coordination_config
for each row execute function agent_coordination_config_numbers();

-- The bus can't do without its settings. (Without types it is one that another is copied into: copying/empty.sql.)
create function agent_coordination_config_kept() returns trigger language plpgsql set search_path from current as $$
begin
  if tg_op = 'UPDATE' or exists (select 1 from agent_types) then
    raise exception 'immutable: a setting is changed, not removed' using errcode = 'AB000';
  end if;
  return old;
end $$;
create trigger agent_coordination_config_kept before delete on agent_coordination_config
for each row execute function agent_coordination_config_kept();
create trigger agent_coordination_config_not_emptied before truncate on agent_coordination_config
for each statement execute function agent_coordination_config_kept();
create trigger agent_coordination_config_named before update of key on agent_coordination_config
for each row when (new.key <> old.key) execute function agent_coordination_config_kept();

-- Refusals: `insert into refusals select 'code' where …` stops the operation that runs it.

create view refusals (code) as select ''::text where false;
create function refusals_raise() returns trigger language plpgsql as $$
begin
  raise exception using errcode = 'AB000', message = coalesce(new.code, 'refused');
end $$;
create trigger refusals_raise instead of insert on refusals for each row execute function refusals_raise();

create table coordination_sessions (
  session_id     identifier primary key,
  milestone_id   text not null default '',
  operation_type text not null default 'execution',
  phase          text,
  coordinator_id text,
  agent_count    bigint not null default 0,
  progress       double precision not null default 0 constraint invalid_progress check (progress between 0 and 100),
  status         text not null default 'active'
    constraint invalid_status check (status in ('active', 'paused', 'completed', 'failed', 'abandoned')),
  configuration  note not null default '{}',
  created_at     moment not null default clock_timestamp(),
  last_activity  moment not null default clock_timestamp(),
  completed_at   moment
) with (fillfactor = 80);

create function coordination_sessions_type() returns trigger language plpgsql set search_path from current as $$
begin
  if not exists (select 1 from operation_types where name = new.operation_type) then
    raise exception 'unknown_type: there is no such operation type' using errcode = 'AB000';
  end if;
  return new;
end $$;
create trigger coordination_sessions_type before insert or update of operation_type on coordination_sessions
for each row execute function coordination_sessions_type();

create table agent_registry (
  agent_id           identifier primary key,
  agent_type         text collate "C" not null,
  milestone_id       text not null default '',
  session_id         identifier not null,
  status             text not null default 'active' constraint invalid_status
    check (status in ('spawning', 'active', 'paused', 'completed', 'failed', 'terminated')),
  capabilities       note not null default '[]' constraint invalid_json check (json_typeof(capabilities) = 'array'),
  current_task       text,
  current_phase      text,
  resource_usage     note,
  spawn_time         moment not null default clock_timestamp(),
  last_heartbeat     moment not null default clock_timestamp(),
  completion_time    moment,
  error_info         note,
  host               text,
  pid                bigint,
  pid_namespace      text,
  process_started_at bigint,  -- clock ticks after the boot, as in /proc/PID/stat
  boot_id            text,
  command            text     -- how to start the agent again
) with (fillfactor = 80);
create index agent_registry_session on agent_registry (session_id);

create function agent_registry_type() returns trigger language plpgsql set search_path from current as $$
begin
  if not exists (select 1 from agent_types where name = new.agent_type) then
    raise exception 'unknown_type: there is no such agent type' using errcode = 'AB000';
  end if;
  return new;
end $$;
create trigger agent_registry_type before insert or update of agent_type on agent_registry
for each row execute function agent_registry_type();

-- A session counts its agents, and is as active as the most active of them. One that was given up in a silence
-- (sessions/fail.sql) lives again when one of them is heard of. Its activity is a hint that nobody waits
-- for: who finds the row locked leaves it, which also keeps agents and sessions from waiting for each other.
create function session_activity(session text, at timestamptz) returns void language plpgsql
set search_path from current as $$
begin
  update coordination_sessions set last_activity = at where session_id = (
    select session_id from coordination_sessions where session_id = session and last_activity < at
    for update skip locked);
end $$;
create function agent_registry_counts() returns trigger language plpgsql set search_path from current as $$
begin
  if tg_op <> 'INSERT' then
    update coordination_sessions set agent_count = agent_count - 1 where session_id = old.session_id;
  end if;
  if tg_op <> 'DELETE' then
    update coordination_sessions set agent_count = agent_count + 1,
      last_activity = greatest(last_activity, new.last_heartbeat),
      status = case when status = 'failed' and completed_at < new.last_heartbeat then 'active' else status end,
      completed_at = case when status = 'failed' and completed_at < new.last_heartbeat then null else completed_at end
    where session_id = new.session_id;
  end if;
  return null;
end $$;
create trigger agent_registry_counts after insert or delete on agent_registry
for each row execute function agent_registry_counts();
create trigger agent_registry_moves after update of session_id on agent_registry
for each row when (old.session_id <> new.session_id) execute function agent_registry_counts();
create function coordination_sessions_counts() returns trigger language plpgsql set search_path from current as $$
begin  -- by hand, agents may come first
  if new.agent_count = 0 then
    new.agent_count := (select count(*) from agent_registry where session_id = new.session_id);
  end if;
  return new;
end $$;
create trigger coordination_sessions_counts before insert on coordination_sessions
for each row execute function coordination_sessions_counts();
create function agent_registry_beats() returns trigger language plpgsql set search_path from current as $$
begin
  perform session_activity(new.session_id, new.last_heartbeat);
  update coordination_sessions set status = 'active', completed_at = null where session_id = (
    select session_id from coordination_sessions
    where session_id = new.session_id and status = 'failed' and completed_at < new.last_heartbeat
    for update skip locked);
  return null;
end $$;
-- Whoever was taken for dead, by others, and is heard of again lives, and their note goes. (What it says by itself, that
-- it has failed for instance, agents/retire.sql and agents/heartbeat.sql write after that.)
create function agent_registry_revives() returns trigger language plpgsql as $$
begin
  if new.error_info ->> 'by' is not null
      and coalesce(new.error_info ->> 'silent_since', new.error_info ->> 'recovery') is not null then
    new.status := 'active';
    new.completion_time := null;
    new.error_info := nullif((new.error_info::jsonb
      - array['silent_since', 'recovery', 'by', 'at', 'was', 'given_back', 'buried'])::text, '{}')::json;
  end if;
  return new;
end $$;
create trigger agent_registry_revives before update of last_heartbeat on agent_registry
for each row when (new.status = 'failed' and old.status = 'failed' and new.last_heartbeat > old.last_heartbeat)
execute function agent_registry_revives();
create function agent_registry_rings() returns trigger language plpgsql set search_path from current as $$
declare
  rung boolean := bell_ring(new.agent_id);  -- another of its processes may wait for what it no longer is
begin
  return null;
end $$;
create trigger agent_registry_rings after update of agent_type, session_id on agent_registry
for each row when (old.agent_type <> new.agent_type or old.session_id <> new.session_id)
execute function agent_registry_rings();
create trigger agent_registry_beats after update of last_heartbeat on agent_registry
for each row when (old.last_heartbeat <> new.last_heartbeat) execute function agent_registry_beats();

-- What a row must be is said in the trigger `agent_messages_check`: constraints and domains would be read and compiled
-- anew by each statement, which costs more than the statement.
create table agent_messages (
  id              bigint generated always as identity primary key,  -- grows, never reused
  session_id      text collate "C" not null,
  from_agent      text collate "C" not null,
  to_agent        text collate "C" not null,
  message_type    text collate "C" not null,
  priority        smallint not null default 5,
  status          text collate "C" not null default 'ready',
  created_at      timestamptz(3) not null default clock_timestamp(),
  delivered_at    timestamptz(3),
  acknowledged_at timestamptz(3),
  retry_count     bigint not null default 0,  -- times it came back since it was sent or redriven
  due_at          timestamptz(3),
  expires_at      timestamptz(3),
  leased_by       text collate "C",  -- kept when a lease runs out: until somebody takes it, its holder may acknowledge
  delivery        bigint not null default 0,  -- the fencing token: only ever grows
  idempotency_key text collate "C" constraint invalid_idempotency_key check (idempotency_key <> ''),
  correlation_id  text,
  reply_to        bigint,
  dead_reason     text,
  reason          text,
  digest          text,
  traceparent     trace_context,  -- as the sender gave it
  payload         json not null,
  mailbox         text collate "C" not null  -- worked out by a trigger: of a queue, with its session
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500,
  autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

create index agent_messages_ready on agent_messages (mailbox, priority desc, id) where status = 'ready';
create index agent_messages_timers on agent_messages (mailbox, due_at) where due_at is not null;
-- (No index is to look good to a statement that names its rows by their ids: hence `is not null`.)
create index agent_messages_holders on agent_messages (leased_by) where status = 'leased' and leased_by is not null;
create index agent_messages_dead on agent_messages (session_id) where status = 'dead';
create unique index agent_messages_key on agent_messages (from_agent, to_agent, idempotency_key)
  where idempotency_key is not null;

-- Waking up. Whoever waits at a bell (an address, `message=ID`, `state=AGENT`) listens to its channel, and holds a shared
-- lock that says so; NOTIFY makes commits queue, so a writer sends one only where that lock is held. No wake-up is lost:
-- a writer holds the bell's other lock, shared, until its commit shows, and who begins to wait passes through that
-- lock, alone, after it began to listen and before it looks. Writers who come meanwhile queue behind it: so it gives up
-- soon where a transaction stays open, and looks now and then until it got through. The table's number keeps the bells
-- of several buses apart.
-- Triggers call `bell_ring`, which is inlined into them, and set the search path.

create function bell_channel(bell text) returns text language sql stable
  as $$select 'bus_' || md5(current_schema() || '/' || bell)$$;
create function bell_waited(bell text) returns bigint language sql immutable
  as $$select hashtextextended(bell, 'agent_messages'::regclass::oid::bigint)$$;
create function bell_written(bell text) returns bigint language sql immutable
  as $$select hashint8extended('agent_messages'::regclass::oid::bigint, hashtext(bell) & 63)$$;
-- Locks `bell_written`; notifies where `bell_waited` is locked. It is always true.
create function bell_ring(bell text) returns boolean language sql as $$
  select case when pg_advisory_xact_lock_shared(bell_written(bell)) is not null and pg_try_advisory_lock(bell_waited(bell))
    then pg_advisory_unlock(bell_waited(bell)) else pg_notify(bell_channel(bell), '') is not null end
$$;
create function bell_listen(bell text) returns void language plpgsql set search_path from current as $$
begin
  perform pg_advisory_lock_shared(bell_waited(bell));
  execute format('listen %I', bell_channel(bell));
end $$;
-- Whether all are through who wrote for a bell before; waits for them for a moment, or not at all.
create function bell_pass(bell text, patiently boolean) returns boolean language plpgsql
set search_path from current set lock_timeout = '50ms' as $$
begin
  if patiently then
    perform pg_advisory_lock(bell_written(bell));
  elsif not pg_try_advisory_lock(bell_written(bell)) then
    return false;
  end if;
  perform pg_advisory_unlock(bell_written(bell));
  return true;
exception when lock_not_available then
  return false;
end $$;
create function bell_leave(bell text) returns void language plpgsql set search_path from current as $$
begin
  execute format('unlisten %I', bell_channel(bell));
  perform pg_advisory_unlock_shared(bell_waited(bell));
end $$;

-- The heads of an agent's mailbox and of its type's queue, the best first, at most so many of each; with
-- priority_aging_seconds those of each level.
create function message_heads(agent text, of_type text, at timestamptz, most bigint)
returns table (id bigint, rank double precision) language sql stable rows 10 as $$
  select own.id, own.rank from (
    select m.id, (-m.priority)::double precision as rank from agent_messages m
    where m.mailbox = agent and m.status = 'ready' and (of_type is null or m.message_type = of_type)
      and (m.expires_at is null or m.expires_at > at)
      and (select c.value::double precision from agent_coordination_config c where c.key = 'priority_aging_seconds') = 0
    order by m.priority desc, m.id limit most) own
  union all
  select shared.id, shared.rank from (
    select m.id, (-m.priority)::double precision as rank from agent_messages m
    where m.mailbox = (select '@' || r.agent_type || '/' || r.session_id from agent_registry r where r.agent_id = agent)
      and m.status = 'ready' and (of_type is null or m.message_type = of_type)
      and (m.expires_at is null or m.expires_at > at)
      and (select c.value::double precision from agent_coordination_config c where c.key = 'priority_aging_seconds') = 0
    order by m.priority desc, m.id limit most) shared
  union all
  select head.id, julianday(head.created_at) * 86400.0 - level * aging.seconds
  from (
    select c.value::double precision as seconds from agent_coordination_config c
    where c.key = 'priority_aging_seconds') aging
  cross join generate_series(1, 10) level
  cross join (
    select agent as name
    union all
    select '@' || r.agent_type || '/' || r.session_id from agent_registry r where r.agent_id = agent) box
  cross join lateral (
    select m.id, m.created_at from agent_messages m
    where m.mailbox = box.name and m.status = 'ready' and m.priority = level
      and (of_type is null or m.message_type = of_type) and (m.expires_at is null or m.expires_at > at)
    order by m.mailbox, m.priority desc, m.id limit most) head
  where aging.seconds > 0
$$;

-- What is due in two mailboxes moves, as schemas/operations/messages/receive.sql says.
create function messages_due(agent text, queue text, at timestamptz) returns void language plpgsql as $$
declare
  due bigint[] := array(
    select id from agent_messages where mailbox in (agent, queue) and due_at <= at
    order by due_at limit 10000 for update skip locked);
  most double precision := (select value from agent_coordination_config where key = 'message_retry_limit');
begin
  update agent_messages set
    status = case
      when status in ('acknowledged', 'dead') then status
      when expires_at <= at then 'dead'
      when status = 'leased' and retry_count >= most then 'dead'
      else 'ready' end,
    dead_reason = case
      when status in ('acknowledged', 'dead') then dead_reason
      when expires_at <= at then 'expired'
      when status = 'leased' and retry_count >= most then 'retries_exhausted' end,
    retry_count = retry_count + case
      when status = 'leased' and coalesce(expires_at > at, true) and retry_count < most then 1 else 0 end,
    due_at = case when expires_at > at and status not in ('acknowledged', 'dead') then expires_at end
  where id = any(due) and due_at <= at;
  if cardinality(due) = 10000 then
    perform messages_due(agent, queue, at);
  end if;
end $$;

-- Lease up to `most` messages for an agent: what schemas/operations/messages/receive.sql says. Claimers work at the same
-- time: rows are locked as they are chosen, others' are passed over, and no lock is waited for.
--
-- `seen` saves the claimer a look at who else holds what it could take: its host, boot and pid namespace, and processes
-- that it sees run. No rows: somebody there may be dead, look first; (0, 0, null): there is nothing.
create function message_claim(agent text, of_type text, most bigint, lease double precision, at timestamptz, seen text)
returns table (rank double precision, id bigint, record json) language plpgsql rows 1 as $$
#variable_conflict use_column
declare
  queue text;
  silent boolean;
  back boolean;
  own_timer timestamptz;
  shared_timer timestamptz;
  aging double precision;
  until timestamptz;
  own boolean;
  shared boolean := false;
  spare bigint;
  several bigint[];
  box text;
  words text[] := string_to_array(seen, ' ');
begin
  select '@' || a.agent_type || '/' || a.session_id, a.last_heartbeat < at - interval '5 seconds',
    (select s.last_activity > at + interval '5 seconds' from coordination_sessions s where s.session_id = a.session_id),
    (select m.due_at from agent_messages m where m.mailbox = agent and m.due_at is not null order by m.due_at limit 1),
    (select m.due_at from agent_messages m
     where m.mailbox = '@' || a.agent_type || '/' || a.session_id and m.due_at is not null order by m.due_at limit 1),
    (select c.value::double precision from agent_coordination_config c where c.key = 'priority_aging_seconds'),
    at + interval '1 second' * coalesce(lease, (
      select c.value::double precision from agent_coordination_config c where c.key = 'lease_seconds')),
    exists (select 1 from agent_messages m where m.mailbox = agent and m.status = 'ready')
  into queue, silent, back, own_timer, shared_timer, aging, until, own
  from agent_registry a where a.agent_id = agent;
  if queue is null then
    raise exception 'unknown_agent' using errcode = 'AB000';
  elsif of_type is not null and not exists (select 1 from message_types t where t.name = of_type) then
    raise exception 'unknown_type' using errcode = 'AB000';
  end if;
  if silent then
    update agent_registry set last_heartbeat = at where agent_id = agent;
  end if;
  if own_timer is not null or shared_timer is not null then
    if seen is not null then
      foreach box in array array[case when own_timer is not null then agent end,
          case when shared_timer is not null then queue end] loop
        continue when box is null;
        if exists (
            select 1 from (
              select m.leased_by, m.status from agent_messages m
              where m.due_at is not null and m.mailbox = box order by m.due_at limit 100) timers
            join agent_registry h on h.agent_id = timers.leased_by
            where timers.leased_by <> agent and timers.status = 'leased' and h.pid is not null and h.host = words[1]
              and (h.boot_id <> words[2] or (h.boot_id is not null and h.pid_namespace = words[3]
                and (h.pid || '/' || h.process_started_at = any(words[4:])) is not true))) then
          return;
        end if;
      end loop;
    end if;
    if back or least(own_timer, shared_timer) <= at then
      -- A session that was active after now was so before somebody set the clock back: its leases run out now.
      if back then
        update agent_messages m set due_at = at
        where m.mailbox in (agent, queue) and m.due_at is not null
          and m.status = 'leased' and m.delivered_at > at + interval '5 seconds';
      end if;
      perform messages_due(agent, queue, at);
      own := exists (select 1 from agent_messages m where m.mailbox = agent and m.status = 'ready');
    end if;
  end if;

  if own then
    shared := exists (select 1 from agent_messages m where m.mailbox = queue and m.status = 'ready');
  end if;

  -- The usual case: one message, and only one of the two mailboxes has any. Whoever locked a row has its latest version;
  -- should the statement have seen an older one, PostgreSQL looks at the latest, and does not choose again.
  if most = 1 and aging = 0 and not shared then
    return query update agent_messages m
      set status = 'leased', leased_by = agent, delivery = m.delivery + 1, delivered_at = at, due_at = until
      where m.id = (
        select c.id from agent_messages c
        where c.mailbox = case when own then agent else queue end and c.status = 'ready'
          and (of_type is null or c.message_type = of_type) and (c.expires_at is null or c.expires_at > at)
        order by c.priority desc, c.id limit 1 for update skip locked)
      returning 0::double precision, m.id, message_record(m);
    if not found and seen is not null then
      return query select 0::double precision, 0::bigint, null::json;
    end if;
    return;
  end if;

  -- Each mailbox offers a few more of its heads than are wanted, since some may be locked, and many more when all of
  -- those are; the limit counts those that could be locked. Rows are found by their ids (hence `status || ''`): a join
  -- would be planned by how few rows there once were. Chosen and taken by two statements: were it one, a row that changed
  -- after its snapshot would make PostgreSQL work the choice out again in the middle of it (EvalPlanQual), lock other
  -- rows, and take more than the limit.
  foreach spare in array array[8, 1000] loop
    several := array(
      select m.id from agent_messages m
      where m.id = any(array(
          select c.id from message_heads(agent, of_type, at, most + spare) c order by c.rank, c.id limit most + spare))
        and m.status || '' = 'ready'
      order by case when aging = 0 then -m.priority
        else julianday(m.created_at) * 86400.0 - m.priority * aging end, m.id
      limit most for update skip locked);
    exit when cardinality(several) > 0;
  end loop;
  return query update agent_messages m
    set status = 'leased', leased_by = agent, delivery = m.delivery + 1, delivered_at = at, due_at = until
    where m.id = any(several)
    returning case when aging = 0 then -m.priority
      else julianday(m.created_at) * 86400.0 - m.priority * aging end, m.id, message_record(m);
  if not found and seen is not null then
    return query select 0::double precision, 0::bigint, null::json;
  end if;
end $$;

-- Acknowledge receipts, a JSON array, all or none: what schemas/operations/messages/ack.sql says; the ids of those that
-- were not acknowledged already. In the order of the ids, so that two who acknowledge the same never wait in a circle.
create function messages_acknowledge(receipts text, at timestamptz) returns setof bigint language plpgsql rows 1 as $$
declare
  several text[] := string_to_array(translate(receipts, '[]" ', ''), ',');
  receipt text;
  message bigint;
  latest bigint;
  holder text;
  silent boolean;
  held record;
begin
  if cardinality(several) > 1 then
    several := array(select r from unnest(several) r group by r order by split_part(r, '.', 1)::bigint, r);
  end if;
  foreach receipt in array several loop
    message := split_part(receipt, '.', 1);
    latest := split_part(receipt, '.', 2);
    update agent_messages m set status = 'acknowledged', acknowledged_at = at, due_at = null
    where m.id = message and m.delivery = latest and m.status = 'leased'
    returning m.leased_by, m.delivered_at <= at - interval '5 seconds' and (
      select a.last_heartbeat < at - interval '5 seconds' from agent_registry a where a.agent_id = m.leased_by)
    into holder, silent;
    if found then
      return next message;
    else
      -- (A receipt that is over stays so: a row that is only looked at must not be locked, since claims pass over it.)
      select m.* into held from agent_messages m
      where m.id = message and m.delivery = latest and m.leased_by is not null for update;
      if not found then
        select m.* into held from agent_messages m where m.id = message;
      end if;
      if held.id is null then
        raise exception 'unknown_message' using errcode = 'AB000';
      end if;
      if held.delivery <> latest or not (held.status = 'acknowledged'
          or (held.status in ('leased', 'ready') and held.leased_by is not null)) then
        raise exception 'lease_lost' using errcode = 'AB000';
      end if;
      holder := held.leased_by;
      silent := held.delivered_at <= at - interval '5 seconds';
      -- Its lease ran out, but nobody took it: leased again for a moment, since only a leased one can be acknowledged.
      update agent_messages m set status = 'leased', due_at = at where m.id = message and m.status = 'ready';
      update agent_messages m set status = 'acknowledged', acknowledged_at = at, due_at = null
      where m.id = message and m.status = 'leased';
      if found then
        return next message;
      end if;
    end if;
    if silent then
      update agent_registry a set last_heartbeat = at
      where a.agent_id = holder and a.last_heartbeat < at - interval '5 seconds';
    end if;
  end loop;
end $$;

-- What a message must be, whoever writes it; the edges of its life cycle, and nothing else; and whom it wakes.
--
-- PL/pgSQL makes every expression that it comes by ready anew in each transaction, which costs more than to evaluate it.
-- So the triggers ask first, in one expression, whether a row is what it is nearly always; what is not plainly that is
-- judged by `agent_messages_judge`, which knows what is wrong.

create function agent_messages_judge(m agent_messages) returns void language plpgsql as $$
begin
  if not (m.status in ('scheduled', 'ready', 'leased', 'acknowledged', 'dead')
      and (m.status not in ('scheduled', 'leased') or m.due_at is not null)
      and (m.status <> 'leased' or (m.leased_by is not null and m.delivery > 0))
      and (m.status = 'acknowledged') = (m.acknowledged_at is not null)
      and (m.status = 'dead') = (m.dead_reason is not null)) then
    raise exception 'invalid_status' using errcode = 'AB000';
  end if;
  if not (m.dead_reason in ('retries_exhausted', 'expired', 'rejected', 'cancelled', 'damaged')) then
    raise exception 'invalid_dead_reason' using errcode = 'AB000';
  end if;
  if not (m.priority between 1 and 10) then
    raise exception 'invalid_priority' using errcode = 'AB000';
  end if;
  if not (m.id between 1 and 1000000000000000 and m.delivery between 0 and 1000000000000 and m.retry_count >= 0) then
    raise exception 'invalid_value: a number beyond what there can be' using errcode = 'AB000';
  end if;
  if not (least(m.created_at, m.delivered_at, m.acknowledged_at, m.due_at, m.expires_at) >= '0001-01-01 00:00:00+00'
      and greatest(m.created_at, m.delivered_at, m.acknowledged_at, m.due_at, m.expires_at)
        < '10000-01-01 00:00:00+00') then
    raise exception 'invalid_moment' using errcode = 'AB000';
  end if;
  if m.session_id is null then
    raise exception 'unknown_agent' using errcode = 'AB000';
  end if;
  if not (m.session_id ~ '^[A-Za-z0-9_:][A-Za-z0-9._:@-]{0,127}$'
      and m.from_agent ~ '^[A-Za-z0-9_:][A-Za-z0-9._:@-]{0,127}$') then
    raise exception 'invalid_id' using errcode = 'AB000';
  end if;
  if not (m.to_agent ~ '^@?[A-Za-z0-9_:][A-Za-z0-9._:@-]{0,127}$') then
    raise exception 'invalid_address' using errcode = 'AB000';
  end if;
end $$;

create function agent_messages_check() returns trigger language plpgsql set search_path from current as $$
declare
  known boolean;
  most double precision;
  active timestamptz;
  rung boolean;
begin
  -- (Names of any length are no matter for a regular expression that counts nothing; counting takes many times as long.)
  if (new.status = 'ready' and new.priority between 1 and 10 and new.id > 0 and new.id < 1000000000000000
      and new.delivery = 0 and new.retry_count = 0 and octet_length(new.session_id) <= 128
      and octet_length(new.from_agent) <= 128 and octet_length(new.to_agent) <= 128
      and new.session_id || '/' || new.from_agent || '/' || new.to_agent
        ~ '^[A-Za-z0-9_:][A-Za-z0-9._:@-]*/[A-Za-z0-9_:][A-Za-z0-9._:@-]*/@?[A-Za-z0-9_:][A-Za-z0-9._:@-]*$'
      and new.created_at >= '0001-01-01 00:00:00+00' and new.created_at < '10000-01-01 00:00:00+00'
      and coalesce(new.delivered_at, new.acknowledged_at, new.due_at, new.expires_at) is null
      and new.dead_reason is null) is not true then
    perform agent_messages_judge(new);
    -- By hand, an expiry may be given without its timer.
    if new.status in ('scheduled', 'ready') and new.expires_at is not null
        and (new.due_at is null or new.expires_at < new.due_at) then
      new.due_at := new.expires_at;
    end if;
  end if;
  select exists (select 1 from message_types where name = new.message_type)
      and case when new.to_agent ^@ '@' then exists (select 1 from agent_types where name = substr(new.to_agent, 2))
        else true end,
    (select value::double precision from agent_coordination_config where key = 'max_payload_bytes'),
    (select last_activity from coordination_sessions where session_id = new.session_id)
  into known, most, active;
  if not known then
    raise exception 'unknown_type: there is no such %', case
      when exists (select 1 from message_types where name = new.message_type) then 'agent type' else 'message type' end
      using errcode = 'AB000';
  end if;
  -- (What is wrong with a document, if anything, is told by the function that judges the others, too.)
  if octet_length(new.payload::text) > most or new.payload::text ~ '[0-9]{19}|[0-9.][eE]'
      or not json_has_unique_keys(new.payload) then
    perform document_check(new.payload, most);
  end if;
  if payload_breaks(new.message_type, new.payload::jsonb) then
    raise exception using errcode = 'AB000', message = 'invalid_payload: ' || case
      when json_typeof(new.payload) = 'object' then new.message_type else 'a payload is a JSON object' end;
  end if;
  if active < date_bin('10 seconds', new.created_at, '2000-01-01 00:00+00') then
    perform session_activity(new.session_id, new.created_at);
  end if;
  new.mailbox := case when new.to_agent ^@ '@' then new.to_agent || '/' || new.session_id else new.to_agent end;
  rung := bell_ring(new.to_agent);
  return new;
end $$;
create trigger agent_messages_check before insert on agent_messages
for each row execute function agent_messages_check();
create function agent_messages_expiry_changes() returns trigger language plpgsql as $$
begin
  new.due_at := new.expires_at;
  return new;
end $$;
create trigger agent_messages_expiry_changes before update of expires_at on agent_messages
for each row when (new.status in ('scheduled', 'ready') and new.expires_at is not null
  and (new.due_at is null or new.expires_at < new.due_at))
execute function agent_messages_expiry_changes();

-- Whether a message of that type with that payload may be sent, to whomever.
create function message_judged(session text, sender text, of_type text, document json) returns boolean
language plpgsql set search_path from current as $$
begin
  insert into agent_messages (session_id, from_agent, to_agent, message_type, payload)
  values (session, sender, sender, of_type, document);
  raise exception using errcode = 'AB001';
exception when sqlstate 'AB001' then  -- which takes the row back
  return true;
end $$;

create function agent_messages_change() returns trigger language plpgsql set search_path from current as $$
declare
  rung boolean;
begin
  if new.status = 'leased' then  -- claimed
    if old.status = 'ready' and new.leased_by is not null and new.delivery > old.delivery
        and new.delivery < 1000000000000 and new.retry_count >= 0 and new.priority = old.priority
        and new.delivered_at >= '0001-01-01 00:00:00+00' and new.due_at >= new.delivered_at
        and new.due_at < '10000-01-01 00:00:00+00' and new.expires_at is not distinct from old.expires_at
        and coalesce(new.acknowledged_at, old.acknowledged_at) is null
        and coalesce(new.dead_reason, old.dead_reason) is null then
      return new;
    end if;
  elsif new.status = 'acknowledged' then
    if old.status = 'leased' and new.acknowledged_at >= '0001-01-01 00:00:00+00'
        and new.acknowledged_at < '10000-01-01 00:00:00+00' and new.due_at is null and new.delivery = old.delivery
        and new.retry_count >= 0 and new.priority = old.priority and new.delivered_at is not distinct from old.delivered_at
        and new.expires_at is not distinct from old.expires_at and new.dead_reason is null then
      rung := bell_ring('message=' || new.id);
      return new;
    end if;
  end if;
  if new.delivery < old.delivery then
    raise exception 'immutable: the delivery number only grows' using errcode = 'AB000';
  end if;
  if new.status <> old.status and not (case old.status
      when 'scheduled' then new.status in ('ready', 'dead')
      when 'ready' then new.status in ('leased', 'dead')
      when 'leased' then new.status in ('ready', 'scheduled', 'acknowledged', 'dead')
      when 'dead' then new.status = 'ready'
      else false end) then
    raise exception 'illegal_transition' using errcode = 'AB000';
  end if;
  perform agent_messages_judge(new);
  if new.status <> old.status and new.status <> 'leased' then
    rung := bell_ring(case when new.status in ('acknowledged', 'dead') then 'message=' || new.id else new.to_agent end);
  elsif new.due_at < old.due_at then  -- whoever waits for it sleeps until then
    rung := bell_ring(new.to_agent);
  end if;
  return new;
end $$;
create trigger agent_messages_change before update on agent_messages
for each row execute function agent_messages_change();

-- What breaks the payload schema of its type: `payload_TYPE` of each, a function that 0002_payloads.sql or `bus types add`
-- made, found by halving their names: `payload_breaks`, written anew by `payload_checks` whenever there is another one.
-- True also of a payload that is not an object; null for a type that has no schema.
create function payload_check(of_type text) returns text language sql immutable as $$
  select case when length(of_type) <= 50 then 'payload_' || of_type
    else 'payload ' || left(encode(sha256(convert_to(of_type, 'UTF8')), 'hex'), 40) end
$$;
create function payload_choice(names text[]) returns text language plpgsql immutable as $$
declare
  half integer := cardinality(names) / 2;
begin
  if half = 0 then
    return case when cardinality(names) = 1 then
      format('if of_type = %L then return %I(document); end if;', names[1], payload_check(names[1])) else '' end;
  end if;
  return format('if of_type collate "C" < %L then %s else %s end if;',
    names[half + 1], payload_choice(names[:half]), payload_choice(names[half + 1:]));
end $$;
create function payload_checks() returns void language plpgsql set search_path from current as $$
begin
  lock table message_types in share update exclusive mode;  -- of several who add types, each knows those before it
  execute format($make$
    create or replace function payload_breaks(of_type text, document jsonb) returns boolean language plpgsql immutable
    as $check$ begin %s return jsonb_typeof(document) <> 'object'; end $check$ $make$, payload_choice(array(
      select t.name::text from message_types t where to_regprocedure(format('%I(jsonb)', payload_check(t.name))) is not null
      order by t.name)));
end $$;
select payload_checks();

create function agent_messages_envelope() returns trigger language plpgsql as $$
begin
  raise exception 'immutable: what was sent does not change' using errcode = 'AB000';
end $$;
create trigger agent_messages_envelope
before update of id, session_id, from_agent, to_agent, message_type, traceparent, payload, created_at, mailbox
  on agent_messages
for each row execute function agent_messages_envelope();
create trigger agent_messages_key before update of idempotency_key on agent_messages
for each row when (new.idempotency_key is distinct from old.idempotency_key) execute function agent_messages_envelope();

create function agent_messages_newest() returns trigger language plpgsql set search_path from current as $$
begin
  if old.id = (select max(id) from agent_messages) then
    raise exception 'immutable: the newest message stays, so that its id is never used again' using errcode = 'AB000';
  end if;
  return old;
end $$;
create trigger agent_messages_newest before delete on agent_messages
for each row execute function agent_messages_newest();

create table agent_state (
  agent_id    identifier not null,
  state_key   state_key not null,
  state_type  text not null default 'user_data',
  version     bigint not null default 1 constraint invalid_value check (version > 0),
  created_at  moment not null default clock_timestamp(),
  updated_at  moment not null default clock_timestamp(),
  expires_at  moment,
  state_value text not null,
  primary key (agent_id, state_key)
) with (fillfactor = 80);
create index agent_state_expiry on agent_state (expires_at) where expires_at is not null;

create function agent_state_check() returns trigger language plpgsql set search_path from current as $$
declare
  rung boolean;
begin
  if (tg_op = 'INSERT' or new.state_type <> old.state_type)
      and not exists (select 1 from state_types where name = new.state_type) then
    raise exception 'unknown_type: there is no such state type' using errcode = 'AB000';
  end if;
  -- By hand, a value may be changed without its version, which grows nevertheless, or a version be taken back
  -- (state/delete.sql changes none).
  if tg_op = 'UPDATE' and (new.version < old.version or (new.version = old.version
      and new.state_value <> old.state_value and new.expires_at is distinct from '0001-01-01 00:00:00+00')) then
    new.version := old.version + 1;
  end if;
  rung := bell_ring('state=' || new.agent_id);
  return new;
end $$;
create trigger agent_state_check before insert or update on agent_state
for each row execute function agent_state_check();

create table agent_checkpoints (
  checkpoint_id   text collate "C" primary key
    default (right(gen_random_uuid()::text, 8) || left(gen_random_uuid()::text, 8)),
  agent_id        identifier not null,
  session_id      identifier not null,
  checkpoint_type text not null default 'manual' constraint unknown_type
    check (checkpoint_type in ('automatic', 'manual', 'phase_completion', 'error_recovery')),
  parent_id       text,
  created_at      moment not null default clock_timestamp(),
  retention_until moment,
  file_references note not null default '[]' constraint invalid_json
    check (json_typeof(file_references) = 'array' and references_are_sound(file_references)),
  state_snapshot  json not null default '{}',
  rowid           bigint generated always as identity unique  -- the order they were made in, as SQLite has it unasked
    constraint invalid_value check (rowid between 1 and 1000000000000000)
);
create index agent_checkpoints_agent on agent_checkpoints (agent_id, rowid);

create function agent_checkpoints_check() returns trigger language plpgsql set search_path from current as $$
begin
  if new.session_id is null then
    raise exception 'unknown_agent' using errcode = 'AB000';
  end if;
  perform document_check(new.state_snapshot, (
    select value::double precision from agent_coordination_config where key = 'max_payload_bytes'));
  return new;
end $$;
create trigger agent_checkpoints_check before insert on agent_checkpoints
for each row execute function agent_checkpoints_check();
create function agent_checkpoints_frozen() returns trigger language plpgsql as $$
begin
  if new.state_snapshot::text <> old.state_snapshot::text or new.file_references::text <> old.file_references::text then
    raise exception 'immutable: a checkpoint does not change' using errcode = 'AB000';
  end if;
  return new;
end $$;
create trigger agent_checkpoints_frozen before update of state_snapshot, file_references on agent_checkpoints
for each row execute function agent_checkpoints_frozen();

create table agent_health_log (
  id            bigint generated always as identity primary key,
  agent_id      text collate "C" not null,
  health_status text not null constraint invalid_status
    check (health_status in ('healthy', 'degraded', 'failing', 'unresponsive')),
  cpu_usage     double precision,
  memory_usage  double precision,
  response_time double precision,
  error_count   bigint not null default 0,
  warning_count bigint not null default 0,
  timestamp     moment not null default clock_timestamp(),
  details       note,
  constraint invalid_value check (id between 1 and 1000000000000000 and abs(cpu_usage) < 'infinity'
    and abs(memory_usage) < 'infinity' and abs(response_time) < 'infinity')
);
create index agent_health_log_time on agent_health_log (timestamp);

create table milestones (
  id         identifier primary key,
  title      text not null default '',
  status     text not null default 'planned',
  priority   bigint not null default 5 constraint invalid_priority check (priority between 1 and 10),
  data       note not null default '{}' constraint invalid_json check (json_typeof(data) = 'object'),
  created_at moment not null default clock_timestamp(),
  updated_at moment not null default clock_timestamp()
);

-- A type keeps its name, and stays while something is of it.

create function types_stay() returns trigger language plpgsql set search_path from current as $$
begin
  if tg_op = 'UPDATE' or (case tg_table_name
      when 'agent_types' then exists (select 1 from agent_registry where agent_type = old.name)
        or exists (select 1 from agent_messages where to_agent = '@' || old.name)
      when 'message_types' then exists (select 1 from agent_messages where message_type = old.name)
      when 'state_types' then exists (select 1 from agent_state where state_type = old.name)
      else exists (select 1 from coordination_sessions where operation_type = old.name) end) then
    raise exception 'immutable: a type keeps its name, and stays while something is of it' using errcode = 'AB000';
  end if;
  return old;
end $$;
create trigger agent_registry_type_used before delete on agent_types
for each row execute function types_stay();
create trigger agent_registry_type_named before update of name on agent_types
for each row when (new.name <> old.name) execute function types_stay();
create trigger agent_messages_type_used before delete on message_types
for each row execute function types_stay();
create trigger agent_messages_type_named before update of name on message_types
for each row when (new.name <> old.name) execute function types_stay();
create trigger agent_state_type_used before delete on state_types
for each row execute function types_stay();
create trigger agent_state_type_named before update of name on state_types
for each row when (new.name <> old.name) execute function types_stay();
create trigger coordination_sessions_type_used before delete on operation_types
for each row execute function types_stay();
create trigger coordination_sessions_type_named before update of name on operation_types
for each row when (new.name <> old.name) execute function types_stay();

-- Records: what the doors print, one JSON object a row, times as RFC 3339, payloads as JSON.

create type message_fields as (
  id bigint, session_id text, from_agent text, to_agent text, message_type text, payload json, priority smallint,
  status text, created_at text, delivered_at text, acknowledged_at text, retry_count bigint, due_at text, expires_at text,
  leased_by text, receipt text, idempotency_key text, correlation_id text, reply_to bigint, dead_reason text, reason text,
  traceparent text, digest text);
create function message_record(m agent_messages) returns json language sql stable as $$
  select row_to_json(row(
    m.id, m.session_id, m.from_agent, m.to_agent, m.message_type, m.payload, m.priority, m.status,
    moment_text(m.created_at), moment_text(m.delivered_at), moment_text(m.acknowledged_at), m.retry_count,
    moment_text(m.due_at), moment_text(m.expires_at), m.leased_by,
    case when m.delivery > 0 then m.id || '.' || m.delivery end, m.idempotency_key, m.correlation_id, m.reply_to,
    m.dead_reason, m.reason, m.traceparent, m.digest)::message_fields)
$$;
create view message_records as select *, message_record(m) as record from agent_messages m;

create view agent_records as select *, json_build_object(
  'agent_id', agent_id, 'agent_type', agent_type, 'milestone_id', milestone_id, 'session_id', session_id, 'status', status,
  'capabilities', capabilities, 'current_task', current_task, 'current_phase', current_phase,
  'resource_usage', resource_usage, 'spawn_time', replace(spawn_time, ' ', 'T') || 'Z',
  'last_heartbeat', replace(last_heartbeat, ' ', 'T') || 'Z', 'completion_time', replace(completion_time, ' ', 'T') || 'Z',
  'error_info', error_info, 'host', host, 'pid', pid, 'pid_namespace', pid_namespace,
  'process_started_at', process_started_at, 'boot_id', boot_id, 'command', command) as record
from agent_registry;

create view session_records as select *, json_build_object(
  'session_id', session_id, 'milestone_id', milestone_id, 'operation_type', operation_type, 'phase', phase,
  'coordinator_id', coordinator_id, 'agent_count', agent_count, 'progress', progress, 'status', status,
  'configuration', configuration, 'created_at', replace(created_at, ' ', 'T') || 'Z',
  'last_activity', replace(last_activity, ' ', 'T') || 'Z', 'completed_at', replace(completed_at, ' ', 'T') || 'Z') as record
from coordination_sessions;

create view state_records as select *, json_build_object(
  'agent_id', agent_id, 'state_key', state_key, 'state_value', state_value, 'state_type', state_type, 'version', version,
  'created_at', replace(created_at, ' ', 'T') || 'Z', 'updated_at', replace(updated_at, ' ', 'T') || 'Z',
  'expires_at', replace(expires_at, ' ', 'T') || 'Z') as record
from agent_state;

create view checkpoint_records as select *, rowid as sequence, json_build_object(
  'checkpoint_id', checkpoint_id, 'agent_id', agent_id, 'session_id', session_id, 'checkpoint_type', checkpoint_type,
  'state_snapshot', state_snapshot, 'file_references', file_references,
  'created_at', replace(created_at, ' ', 'T') || 'Z', 'retention_until', replace(retention_until, ' ', 'T') || 'Z',
  'parent_id', parent_id) as record
from agent_checkpoints;

create view milestone_records as select *, json_build_object(
  'id', id, 'title', title, 'status', status, 'priority', priority, 'data', data,
  'created_at', replace(created_at, ' ', 'T') || 'Z', 'updated_at', replace(updated_at, ' ', 'T') || 'Z') as record
from milestones;
