-- Made by bin/generate from schemas/messages/*.json; do not edit.
--
-- The message types with their payload schemas, each compiled into a check that holds for every writer.

insert into message_types (name, description, schema) values ('checkpoint_created', 'A checkpoint was written.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"checkpoint_created","description":"A checkpoint was written.","type":"object","properties":{"checkpoint_id":{"type":"string"},"checkpoint_type":{"type":"string"},"phase":{"type":"string"}}}');
create trigger "payload_checkpoint_created" before insert on agent_messages
when new.message_type = 'checkpoint_created' and (exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) r1 where case r1.key when 'checkpoint_id' then not (r1.type = 'text') when 'checkpoint_type' then not (r1.type = 'text') when 'phase' then not (r1.type = 'text') else 0 end))
begin
  select raise(abort, 'invalid_payload: checkpoint_created');
end;

insert into message_types (name, description, schema) values ('completion_notification', 'A task is over.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"completion_notification","description":"A task is over.","type":"object","properties":{"task_id":{"type":"string"},"phase":{"type":"string"},"success":{"type":"boolean"},"artifacts":{"type":"array"},"duration_ms":{"type":"number","minimum":0}}}');
create trigger "payload_completion_notification" before insert on agent_messages
when new.message_type = 'completion_notification' and (exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) r1 where case r1.key when 'task_id' then not (r1.type = 'text') when 'phase' then not (r1.type = 'text') when 'success' then not (r1.type in ('true', 'false')) when 'artifacts' then not (r1.type = 'array') when 'duration_ms' then (not (r1.type in ('integer', 'real')) or (r1.type in ('integer', 'real') and r1.atom < 0)) else 0 end))
begin
  select raise(abort, 'invalid_payload: completion_notification');
end;

insert into message_types (name, description, schema) values ('coordination_request', 'Something asked of another agent.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"coordination_request","description":"Something asked of another agent.","type":"object","properties":{"request":{"type":"string"},"resource":{"type":"string"},"note":{"type":"string"},"options":{"type":"array"}}}');
create trigger "payload_coordination_request" before insert on agent_messages
when new.message_type = 'coordination_request' and (exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) r1 where case r1.key when 'request' then not (r1.type = 'text') when 'resource' then not (r1.type = 'text') when 'note' then not (r1.type = 'text') when 'options' then not (r1.type = 'array') else 0 end))
begin
  select raise(abort, 'invalid_payload: coordination_request');
end;

insert into message_types (name, description, schema) values ('error_report', 'What went wrong.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"error_report","description":"What went wrong.","type":"object","properties":{"error_type":{"type":"string"},"message":{"type":"string"},"stack_trace":{"type":"string"},"phase":{"type":"string"},"task_id":{"type":"string"},"recoverable":{"type":"boolean"}}}');
create trigger "payload_error_report" before insert on agent_messages
when new.message_type = 'error_report' and (exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) r1 where case r1.key when 'error_type' then not (r1.type = 'text') when 'message' then not (r1.type = 'text') when 'stack_trace' then not (r1.type = 'text') when 'phase' then not (r1.type = 'text') when 'task_id' then not (r1.type = 'text') when 'recoverable' then not (r1.type in ('true', 'false')) else 0 end))
begin
  select raise(abort, 'invalid_payload: error_report');
end;

insert into message_types (name, description, schema) values ('phase_transition', 'The work moves from one phase to the next.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"phase_transition","description":"The work moves from one phase to the next.","type":"object","properties":{"from_phase":{"type":"string"},"to_phase":{"type":"string"},"reason":{"type":"string"}}}');
create trigger "payload_phase_transition" before insert on agent_messages
when new.message_type = 'phase_transition' and (exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) r1 where case r1.key when 'from_phase' then not (r1.type = 'text') when 'to_phase' then not (r1.type = 'text') when 'reason' then not (r1.type = 'text') else 0 end))
begin
  select raise(abort, 'invalid_payload: phase_transition');
end;

insert into message_types (name, description, schema) values ('progress_update', 'How far a task is.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"progress_update","description":"How far a task is.","type":"object","properties":{"phase":{"type":"string"},"task_id":{"type":"string"},"status":{"type":"string"},"message":{"type":"string"},"progress":{"type":"number","minimum":0,"maximum":100}}}');
create trigger "payload_progress_update" before insert on agent_messages
when new.message_type = 'progress_update' and (exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) r1 where case r1.key when 'phase' then not (r1.type = 'text') when 'task_id' then not (r1.type = 'text') when 'status' then not (r1.type = 'text') when 'message' then not (r1.type = 'text') when 'progress' then (not (r1.type in ('integer', 'real')) or ((r1.type in ('integer', 'real') and r1.atom < 0) or (r1.type in ('integer', 'real') and r1.atom > 100))) else 0 end))
begin
  select raise(abort, 'invalid_payload: progress_update');
end;

insert into message_types (name, description, schema) values ('resource_request', 'A wish for something shared.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"resource_request","description":"A wish for something shared.","type":"object","properties":{"resource":{"type":"string"},"reason":{"type":"string"},"amount":{"type":"number","minimum":0},"exclusive":{"type":"boolean"}}}');
create trigger "payload_resource_request" before insert on agent_messages
when new.message_type = 'resource_request' and (exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) r1 where case r1.key when 'resource' then not (r1.type = 'text') when 'reason' then not (r1.type = 'text') when 'amount' then (not (r1.type in ('integer', 'real')) or (r1.type in ('integer', 'real') and r1.atom < 0)) when 'exclusive' then not (r1.type in ('true', 'false')) else 0 end))
begin
  select raise(abort, 'invalid_payload: resource_request');
end;

insert into message_types (name, description, schema) values ('task_assignment', 'A task for whoever receives it.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"task_assignment","description":"A task for whoever receives it.","type":"object","properties":{"phase":{"type":"string"},"task_id":{"type":"string"},"title":{"type":"string"},"description":{"type":"string"},"deadline":{"type":"string"},"requirements":{"type":"array","items":{"type":"string"}},"weight":{"type":"number","minimum":0},"context":{"type":"object"}}}');
create trigger "payload_task_assignment" before insert on agent_messages
when new.message_type = 'task_assignment' and (exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) r1 where case r1.key when 'phase' then not (r1.type = 'text') when 'task_id' then not (r1.type = 'text') when 'title' then not (r1.type = 'text') when 'description' then not (r1.type = 'text') when 'deadline' then not (r1.type = 'text') when 'requirements' then (not (r1.type = 'array') or exists (select 1 from json_each(iif(r1.type in ('array', 'object'), r1.value, '[]')) r2 where r1.type = 'array' and not (r2.type = 'text'))) when 'weight' then (not (r1.type in ('integer', 'real')) or (r1.type in ('integer', 'real') and r1.atom < 0)) when 'context' then not (r1.type = 'object') else 0 end))
begin
  select raise(abort, 'invalid_payload: task_assignment');
end;

insert into message_types (name, description, schema) values ('validation_result', 'The verdict on a piece of work.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"validation_result","description":"The verdict on a piece of work.","type":"object","properties":{"subject":{"type":"string"},"valid":{"type":"boolean"},"score":{"type":"number"},"errors":{"type":"array"},"warnings":{"type":"array"}}}');
create trigger "payload_validation_result" before insert on agent_messages
when new.message_type = 'validation_result' and (exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) r1 where case r1.key when 'subject' then not (r1.type = 'text') when 'valid' then not (r1.type in ('true', 'false')) when 'score' then not (r1.type in ('integer', 'real')) when 'errors' then not (r1.type = 'array') when 'warnings' then not (r1.type = 'array') else 0 end))
begin
  select raise(abort, 'invalid_payload: validation_result');
end;
