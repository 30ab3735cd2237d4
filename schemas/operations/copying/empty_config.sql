-- Remove the settings that a bus is made with: those of the copied bus come.
delete from agent_coordination_config;
