-- The settings, by key.
select key, value, description from agent_coordination_config order by key;
