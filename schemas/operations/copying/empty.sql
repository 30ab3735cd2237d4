-- Remove the types and then the settings that a bus is made with: those of the copied bus come. Until then there is no limit
-- on payloads.
delete from agent_types;

delete from message_types;

delete from state_types;

delete from operation_types;

delete from agent_coordination_config;
