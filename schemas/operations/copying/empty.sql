-- Remove the types that a bus is made with, and lift the limit on payloads: those of the copied bus come.
delete from agent_types;

delete from message_types;

delete from state_types;

delete from operation_types;

update agent_coordination_config set value = '3000000000' where key = 'max_payload_bytes';
