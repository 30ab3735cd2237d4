-- Made by bin/generate from schemas/messages/*.json; do not edit.
--
-- The message types with their payload schemas, each compiled into a check that holds for every writer.

insert into message_types (name, description, schema) values ('checkpoint_created', 'A checkpoint was written.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"checkpoint_created","description":"A checkpoint was written.","type":"object","properties":{"checkpoint_id":{"type":"string"},"checkpoint_type":{"type":"string"},"phase":{"type":"string"}}}');
create or replace function "payload_checkpoint_created"(document jsonb) returns boolean language plpgsql immutable as
$check$
begin
  if (not (jsonb_typeof(document) in ('object')) or not (jsonb_typeof((document -> 'checkpoint_id')) in ('string')) or not (jsonb_typeof((document -> 'checkpoint_type')) in ('string')) or not (jsonb_typeof((document -> 'phase')) in ('string'))) then return true; end if;
  return false;
end $check$;
select payload_checks();

insert into message_types (name, description, schema) values ('completion_notification', 'A task is over.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"completion_notification","description":"A task is over.","type":"object","properties":{"task_id":{"type":"string"},"phase":{"type":"string"},"success":{"type":"boolean"},"artifacts":{"type":"array"},"duration_ms":{"type":"number","minimum":0}}}');
create or replace function "payload_completion_notification"(document jsonb) returns boolean language plpgsql immutable as
$check$
begin
  if (not (jsonb_typeof(document) in ('object')) or not (jsonb_typeof((document -> 'task_id')) in ('string')) or not (jsonb_typeof((document -> 'phase')) in ('string')) or not (jsonb_typeof((document -> 'success')) in ('boolean')) or not (jsonb_typeof((document -> 'artifacts')) in ('array')) or not (jsonb_typeof((document -> 'duration_ms')) in ('number')) or case when jsonb_typeof((document -> 'duration_ms')) = 'number' then ((document -> 'duration_ms') #>> '{}')::numeric < 0 end) then return true; end if;
  return false;
end $check$;
select payload_checks();

insert into message_types (name, description, schema) values ('coordination_request', 'Something asked of another agent.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"coordination_request","description":"Something asked of another agent.","type":"object","properties":{"request":{"type":"string"},"resource":{"type":"string"},"note":{"type":"string"},"options":{"type":"array"}}}');
create or replace function "payload_coordination_request"(document jsonb) returns boolean language plpgsql immutable as
$check$
begin
  if (not (jsonb_typeof(document) in ('object')) or not (jsonb_typeof((document -> 'request')) in ('string')) or not (jsonb_typeof((document -> 'resource')) in ('string')) or not (jsonb_typeof((document -> 'note')) in ('string')) or not (jsonb_typeof((document -> 'options')) in ('array'))) then return true; end if;
  return false;
end $check$;
select payload_checks();

insert into message_types (name, description, schema) values ('error_report', 'What went wrong.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"error_report","description":"What went wrong.","type":"object","properties":{"error_type":{"type":"string"},"message":{"type":"string"},"stack_trace":{"type":"string"},"phase":{"type":"string"},"task_id":{"type":"string"},"recoverable":{"type":"boolean"}}}');
create or replace function "payload_error_report"(document jsonb) returns boolean language plpgsql immutable as
$check$
begin
  if (not (jsonb_typeof(document) in ('object')) or not (jsonb_typeof((document -> 'error_type')) in ('string')) or not (jsonb_typeof((document -> 'message')) in ('string')) or not (jsonb_typeof((document -> 'stack_trace')) in ('string')) or not (jsonb_typeof((document -> 'phase')) in ('string')) or not (jsonb_typeof((document -> 'task_id')) in ('string')) or not (jsonb_typeof((document -> 'recoverable')) in ('boolean'))) then return true; end if;
  return false;
end $check$;
select payload_checks();

insert into message_types (name, description, schema) values ('phase_transition', 'The work moves from one phase to the next.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"phase_transition","description":"The work moves from one phase to the next.","type":"object","properties":{"from_phase":{"type":"string"},"to_phase":{"type":"string"},"reason":{"type":"string"}}}');
create or replace function "payload_phase_transition"(document jsonb) returns boolean language plpgsql immutable as
$check$
begin
  if (not (jsonb_typeof(document) in ('object')) or not (jsonb_typeof((document -> 'from_phase')) in ('string')) or not (jsonb_typeof((document -> 'to_phase')) in ('string')) or not (jsonb_typeof((document -> 'reason')) in ('string'))) then return true; end if;
  return false;
end $check$;
select payload_checks();

insert into message_types (name, description, schema) values ('progress_update', 'How far a task is.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"progress_update","description":"How far a task is.","type":"object","properties":{"phase":{"type":"string"},"task_id":{"type":"string"},"status":{"type":"string"},"message":{"type":"string"},"progress":{"type":"number","minimum":0,"maximum":100}}}');
create or replace function "payload_progress_update"(document jsonb) returns boolean language plpgsql immutable as
$check$
begin
  if (not (jsonb_typeof(document) in ('object')) or not (jsonb_typeof((document -> 'phase')) in ('string')) or not (jsonb_typeof((document -> 'task_id')) in ('string')) or not (jsonb_typeof((document -> 'status')) in ('string')) or not (jsonb_typeof((document -> 'message')) in ('string')) or not (jsonb_typeof((document -> 'progress')) in ('number')) or case when jsonb_typeof((document -> 'progress')) = 'number' then ((document -> 'progress') #>> '{}')::numeric < 0 end or case when jsonb_typeof((document -> 'progress')) = 'number' then ((document -> 'progress') #>> '{}')::numeric > 100 end) then return true; end if;
  return false;
end $check$;
select payload_checks();

insert into message_types (name, description, schema) values ('resource_request', 'A wish for something shared.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"resource_request","description":"A wish for something shared.","type":"object","properties":{"resource":{"type":"string"},"reason":{"type":"string"},"amount":{"type":"number","minimum":0},"exclusive":{"type":"boolean"}}}');
create or replace function "payload_resource_request"(document jsonb) returns boolean language plpgsql immutable as
$check$
begin
  if (not (jsonb_typeof(document) in ('object')) or not (jsonb_typeof((document -> 'resource')) in ('string')) or not (jsonb_typeof((document -> 'reason')) in ('string')) or not (jsonb_typeof((document -> 'amount')) in ('number')) or case when jsonb_typeof((document -> 'amount')) = 'number' then ((document -> 'amount') #>> '{}')::numeric < 0 end or not (jsonb_typeof((document -> 'exclusive')) in ('boolean'))) then return true; end if;
  return false;
end $check$;
select payload_checks();

insert into message_types (name, description, schema) values ('task_assignment', 'A task for whoever receives it.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"task_assignment","description":"A task for whoever receives it.","type":"object","properties":{"phase":{"type":"string"},"task_id":{"type":"string"},"title":{"type":"string"},"description":{"type":"string"},"deadline":{"type":"string"},"requirements":{"type":"array","items":{"type":"string"}},"weight":{"type":"number","minimum":0},"context":{"type":"object"}}}');
create or replace function "payload_task_assignment"(document jsonb) returns boolean language plpgsql immutable as
$check$
begin
  if (not (jsonb_typeof(document) in ('object')) or not (jsonb_typeof((document -> 'phase')) in ('string')) or not (jsonb_typeof((document -> 'task_id')) in ('string')) or not (jsonb_typeof((document -> 'title')) in ('string')) or not (jsonb_typeof((document -> 'description')) in ('string')) or not (jsonb_typeof((document -> 'deadline')) in ('string')) or not (jsonb_typeof((document -> 'requirements')) in ('array')) or not (jsonb_typeof((document -> 'weight')) in ('number')) or case when jsonb_typeof((document -> 'weight')) = 'number' then ((document -> 'weight') #>> '{}')::numeric < 0 end or not (jsonb_typeof((document -> 'context')) in ('object'))) then return true; end if;
  if jsonb_typeof((document -> 'requirements')) = 'array' then if (exists (select 1 from jsonb_array_elements(case jsonb_typeof((document -> 'requirements')) when 'array' then (document -> 'requirements') else '[]' end) e1 where coalesce(not (jsonb_typeof(e1) in ('string')), false))) then return true; end if; end if;
  return false;
end $check$;
select payload_checks();

insert into message_types (name, description, schema) values ('validation_result', 'The verdict on a piece of work.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"validation_result","description":"The verdict on a piece of work.","type":"object","properties":{"subject":{"type":"string"},"valid":{"type":"boolean"},"score":{"type":"number"},"errors":{"type":"array"},"warnings":{"type":"array"}}}');
create or replace function "payload_validation_result"(document jsonb) returns boolean language plpgsql immutable as
$check$
begin
  if (not (jsonb_typeof(document) in ('object')) or not (jsonb_typeof((document -> 'subject')) in ('string')) or not (jsonb_typeof((document -> 'valid')) in ('boolean')) or not (jsonb_typeof((document -> 'score')) in ('number')) or not (jsonb_typeof((document -> 'errors')) in ('array')) or not (jsonb_typeof((document -> 'warnings')) in ('array'))) then return true; end if;
  return false;
end $check$;
select payload_checks();
