-- Made by bin/generate from schemas/messages/*.json; do not edit.
--
-- The message types with their payload schemas, each compiled into a check that holds for every writer.

insert into message_types (name, description, schema) values ('checkpoint_created', 'A checkpoint was written.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"checkpoint_created","description":"A checkpoint was written.","type":"object","properties":{"checkpoint_id":{"type":"string"},"checkpoint_type":{"type":"string"},"phase":{"type":"string"}}}');
create trigger "payload_checkpoint_created" before insert on agent_messages
when new.message_type = 'checkpoint_created' and json_valid(new.payload)
  and exists (select 1 from (select 'object' as type, null as atom) where not (type = 'object') or (type = 'object' and exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) property1 where case key when 'checkpoint_id' then not (type = 'text') when 'checkpoint_type' then not (type = 'text') when 'phase' then not (type = 'text') else 0 end)))
begin
  select raise(abort, 'invalid_payload: checkpoint_created');
end;

insert into message_types (name, description, schema) values ('completion_notification', 'A task is over.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"completion_notification","description":"A task is over.","type":"object","properties":{"task_id":{"type":"string"},"phase":{"type":"string"},"success":{"type":"boolean"},"artifacts":{"type":"array"},"duration_ms":{"type":"number","minimum":0}}}');
create trigger "payload_completion_notification" before insert on agent_messages
when new.message_type = 'completion_notification' and json_valid(new.payload)
  and exists (select 1 from (select 'object' as type, null as atom) where not (type = 'object') or (type = 'object' and exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) property1 where case key when 'task_id' then not (type = 'text') when 'phase' then not (type = 'text') when 'success' then not (type in ('true', 'false')) when 'artifacts' then not (type = 'array') when 'duration_ms' then not (type in ('integer', 'real')) or (type in ('integer', 'real') and atom < 0) else 0 end)))
begin
  select raise(abort, 'invalid_payload: completion_notification');
end;

insert into message_types (name, description, schema) values ('coordination_request', 'Something asked of another agent.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"coordination_request","description":"Something asked of another agent.","type":"object","properties":{"request":{"type":"string"},"resource":{"type":"string"},"note":{"type":"string"},"options":{"type":"array"}}}');
create trigger "payload_coordination_request" before insert on agent_messages
when new.message_type = 'coordination_request' and json_valid(new.payload)
  and exists (select 1 from (select 'object' as type, null as atom) where not (type = 'object') or (type = 'object' and exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) property1 where case key when 'request' then not (type = 'text') when 'resource' then not (type = 'text') when 'note' then not (type = 'text') when 'options' then not (type = 'array') else 0 end)))
begin
  select raise(abort, 'invalid_payload: coordination_request');
end;

insert into message_types (name, description, schema) values ('error_report', 'What went wrong.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"error_report","description":"What went wrong.","type":"object","properties":{"error_type":{"type":"string"},"message":{"type":"string"},"stack_trace":{"type":"string"},"phase":{"type":"string"},"task_id":{"type":"string"},"recoverable":{"type":"boolean"}}}');
create trigger "payload_error_report" before insert on agent_messages
when new.message_type = 'error_report' and json_valid(new.payload)
  and exists (select 1 from (select 'object' as type, null as atom) where not (type = 'object') or (type = 'object' and exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) property1 where case key when 'error_type' then not (type = 'text') when 'message' then not (type = 'text') when 'stack_trace' then not (type = 'text') when 'phase' then not (type = 'text') when 'task_id' then not (type = 'text') when 'recoverable' then not (type in ('true', 'false')) else 0 end)))
begin
  select raise(abort, 'invalid_payload: error_report');
end;

insert into message_types (name, description, schema) values ('phase_transition', 'The work moves from one phase to the next.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"phase_transition","description":"The work moves from one phase to the next.","type":"object","properties":{"from_phase":{"type":"string"},"to_phase":{"type":"string"},"reason":{"type":"string"}}}');
create trigger "payload_phase_transition" before insert on agent_messages
when new.message_type = 'phase_transition' and json_valid(new.payload)
  and exists (select 1 from (select 'object' as type, null as atom) where not (type = 'object') or (type = 'object' and exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) property1 where case key when 'from_phase' then not (type = 'text') when 'to_phase' then not (type = 'text') when 'reason' then not (type = 'text') else 0 end)))
begin
  select raise(abort, 'invalid_payload: phase_transition');
end;

insert into message_types (name, description, schema) values ('progress_update', 'How far a task is.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"progress_update","description":"How far a task is.","type":"object","properties":{"phase":{"type":"string"},"task_id":{"type":"string"},"status":{"type":"string"},"message":{"type":"string"},"progress":{"type":"number","minimum":0,"maximum":100}}}');
create trigger "payload_progress_update" before insert on agent_messages
when new.message_type = 'progress_update' and json_valid(new.payload)
  and exists (select 1 from (select 'object' as type, null as atom) where not (type = 'object') or (type = 'object' and exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) property1 where case key when 'phase' then not (type = 'text') when 'task_id' then not (type = 'text') when 'status' then not (type = 'text') when 'message' then not (type = 'text') when 'progress' then not (type in ('integer', 'real')) or (type in ('integer', 'real') and atom < 0) or (type in ('integer', 'real') and atom > 100) else 0 end)))
begin
  select raise(abort, 'invalid_payload: progress_update');
end;

insert into message_types (name, description, schema) values ('resource_request', 'A wish for something shared.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"resource_request","description":"A wish for something shared.","type":"object","properties":{"resource":{"type":"string"},"reason":{"type":"string"},"amount":{"type":"number","minimum":0},"exclusive":{"type":"boolean"}}}');
create trigger "payload_resource_request" before insert on agent_messages
when new.message_type = 'resource_request' and json_valid(new.payload)
  and exists (select 1 from (select 'object' as type, null as atom) where not (type = 'object') or (type = 'object' and exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) property1 where case key when 'resource' then not (type = 'text') when 'reason' then not (type = 'text') when 'amount' then not (type in ('integer', 'real')) or (type in ('integer', 'real') and atom < 0) when 'exclusive' then not (type in ('true', 'false')) else 0 end)))
begin
  select raise(abort, 'invalid_payload: resource_request');
end;

insert into message_types (name, description, schema) values ('task_assignment', 'A task for whoever receives it.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"task_assignment","description":"A task for whoever receives it.","type":"object","properties":{"phase":{"type":"string"},"task_id":{"type":"string"},"title":{"type":"string"},"description":{"type":"string"},"deadline":{"type":"string"},"requirements":{"type":"array","items":{"type":"string"}},"weight":{"type":"number","minimum":0},"context":{"type":"object"}}}');
create trigger "payload_task_assignment" before insert on agent_messages
when new.message_type = 'task_assignment' and json_valid(new.payload)
  and exists (select 1 from (select 'object' as type, null as atom) where not (type = 'object') or (type = 'object' and exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) property1 where case key when 'phase' then not (type = 'text') when 'task_id' then not (type = 'text') when 'title' then not (type = 'text') when 'description' then not (type = 'text') when 'deadline' then not (type = 'text') when 'requirements' then not (type = 'array') or (type = 'array' and exists (select 1 from json_each(iif(property1.type in ('array', 'object'), property1.value, '[]')) item2 where not (type = 'text'))) when 'weight' then not (type in ('integer', 'real')) or (type in ('integer', 'real') and atom < 0) when 'context' then not (type = 'object') else 0 end)))
begin
  select raise(abort, 'invalid_payload: task_assignment');
end;

insert into message_types (name, description, schema) values ('validation_result', 'The verdict on a piece of work.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"validation_result","description":"The verdict on a piece of work.","type":"object","properties":{"subject":{"type":"string"},"valid":{"type":"boolean"},"score":{"type":"number"},"errors":{"type":"array"},"warnings":{"type":"array"}}}');
create trigger "payload_validation_result" before insert on agent_messages
when new.message_type = 'validation_result' and json_valid(new.payload)
  and exists (select 1 from (select 'object' as type, null as atom) where not (type = 'object') or (type = 'object' and exists (select 1 from json_each(iif(json_valid(new.payload), new.payload, '{}')) property1 where case key when 'subject' then not (type = 'text') when 'valid' then not (type in ('true', 'false')) when 'score' then not (type in ('integer', 'real')) when 'errors' then not (type = 'array') when 'warnings' then not (type = 'array') else 0 end)))
begin
  select raise(abort, 'invalid_payload: validation_result');
end;
