-- Made by bin/generate from schemas/messages/*.json; do not edit.
--
-- The message types with their payload schemas, each compiled into a check that holds for every writer.

insert into message_types (name, description, schema) values ('checkpoint_created', 'A checkpoint was written.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"checkpoint_created","description":"A checkpoint was written.","type":"object","properties":{"checkpoint_id":{"type":"string"},"checkpoint_type":{"type":"string"},"phase":{"type":"string"}}}');
create or replace function "payload_checkpoint_created"(document jsonb) returns boolean language sql immutable as
$check$select document @? 'strict $ ? (((@.type() != "object") || (@."checkpoint_id".type() != "string")) || ((@."checkpoint_type".type() != "string") || (@."phase".type() != "string")))'$check$;
select payload_checks();

insert into message_types (name, description, schema) values ('completion_notification', 'A task is over.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"completion_notification","description":"A task is over.","type":"object","properties":{"task_id":{"type":"string"},"phase":{"type":"string"},"success":{"type":"boolean"},"artifacts":{"type":"array"},"duration_ms":{"type":"number","minimum":0}}}');
create or replace function "payload_completion_notification"(document jsonb) returns boolean language sql immutable as
$check$select document @? 'strict $ ? ((((@.type() != "object")) || ((@."task_id".type() != "string") || (@."phase".type() != "string"))) || (((@."success".type() != "boolean") || (@."artifacts".type() != "array")) || ((@."duration_ms".type() != "number") || @."duration_ms" < 0)))'$check$;
select payload_checks();

insert into message_types (name, description, schema) values ('coordination_request', 'Something asked of another agent.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"coordination_request","description":"Something asked of another agent.","type":"object","properties":{"request":{"type":"string"},"resource":{"type":"string"},"note":{"type":"string"},"options":{"type":"array"}}}');
create or replace function "payload_coordination_request"(document jsonb) returns boolean language sql immutable as
$check$select document @? 'strict $ ? (((@.type() != "object") || (@."request".type() != "string")) || (((@."resource".type() != "string")) || ((@."note".type() != "string") || (@."options".type() != "array"))))'$check$;
select payload_checks();

insert into message_types (name, description, schema) values ('error_report', 'What went wrong.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"error_report","description":"What went wrong.","type":"object","properties":{"error_type":{"type":"string"},"message":{"type":"string"},"stack_trace":{"type":"string"},"phase":{"type":"string"},"task_id":{"type":"string"},"recoverable":{"type":"boolean"}}}');
create or replace function "payload_error_report"(document jsonb) returns boolean language sql immutable as
$check$select document @? 'strict $ ? ((((@.type() != "object")) || ((@."error_type".type() != "string") || (@."message".type() != "string"))) || (((@."stack_trace".type() != "string") || (@."phase".type() != "string")) || ((@."task_id".type() != "string") || (@."recoverable".type() != "boolean"))))'$check$;
select payload_checks();

insert into message_types (name, description, schema) values ('phase_transition', 'The work moves from one phase to the next.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"phase_transition","description":"The work moves from one phase to the next.","type":"object","properties":{"from_phase":{"type":"string"},"to_phase":{"type":"string"},"reason":{"type":"string"}}}');
create or replace function "payload_phase_transition"(document jsonb) returns boolean language sql immutable as
$check$select document @? 'strict $ ? (((@.type() != "object") || (@."from_phase".type() != "string")) || ((@."to_phase".type() != "string") || (@."reason".type() != "string")))'$check$;
select payload_checks();

insert into message_types (name, description, schema) values ('progress_update', 'How far a task is.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"progress_update","description":"How far a task is.","type":"object","properties":{"phase":{"type":"string"},"task_id":{"type":"string"},"status":{"type":"string"},"message":{"type":"string"},"progress":{"type":"number","minimum":0,"maximum":100}}}');
create or replace function "payload_progress_update"(document jsonb) returns boolean language sql immutable as
$check$select document @? 'strict $ ? ((((@.type() != "object") || (@."phase".type() != "string")) || ((@."task_id".type() != "string") || (@."status".type() != "string"))) || (((@."message".type() != "string") || (@."progress".type() != "number")) || (@."progress" < 0 || @."progress" > 100)))'$check$;
select payload_checks();

insert into message_types (name, description, schema) values ('resource_request', 'A wish for something shared.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"resource_request","description":"A wish for something shared.","type":"object","properties":{"resource":{"type":"string"},"reason":{"type":"string"},"amount":{"type":"number","minimum":0},"exclusive":{"type":"boolean"}}}');
create or replace function "payload_resource_request"(document jsonb) returns boolean language sql immutable as
$check$select document @? 'strict $ ? ((((@.type() != "object")) || ((@."resource".type() != "string") || (@."reason".type() != "string"))) || (((@."amount".type() != "number")) || (@."amount" < 0 || (@."exclusive".type() != "boolean"))))'$check$;
select payload_checks();

insert into message_types (name, description, schema) values ('task_assignment', 'A task for whoever receives it.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"task_assignment","description":"A task for whoever receives it.","type":"object","properties":{"phase":{"type":"string"},"task_id":{"type":"string"},"title":{"type":"string"},"description":{"type":"string"},"deadline":{"type":"string"},"requirements":{"type":"array","items":{"type":"string"}},"weight":{"type":"number","minimum":0},"context":{"type":"object"}}}');
create or replace function "payload_task_assignment"(document jsonb) returns boolean language sql immutable as
$check$select document @? 'strict $ ? ((((@.type() != "object") || (@."phase".type() != "string")) || (((@."task_id".type() != "string")) || ((@."title".type() != "string") || (@."description".type() != "string")))) || ((((@."deadline".type() != "string")) || ((@."requirements".type() != "array") || exists(@."requirements"[*] ? ((@.type() != "string"))))) || (((@."weight".type() != "number")) || (@."weight" < 0 || (@."context".type() != "object")))))'$check$;
select payload_checks();

insert into message_types (name, description, schema) values ('validation_result', 'The verdict on a piece of work.', '{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"validation_result","description":"The verdict on a piece of work.","type":"object","properties":{"subject":{"type":"string"},"valid":{"type":"boolean"},"score":{"type":"number"},"errors":{"type":"array"},"warnings":{"type":"array"}}}');
create or replace function "payload_validation_result"(document jsonb) returns boolean language sql immutable as
$check$select document @? 'strict $ ? ((((@.type() != "object")) || ((@."subject".type() != "string") || (@."valid".type() != "boolean"))) || (((@."score".type() != "number")) || ((@."errors".type() != "array") || (@."warnings".type() != "array"))))'$check$;
select payload_checks();
