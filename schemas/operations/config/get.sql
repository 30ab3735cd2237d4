-- One setting.
select value from agent_coordination_config where key = :key;
