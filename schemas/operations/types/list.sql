-- The types of all four kinds: kind, name, description, and what else the kind has (schema, artifacts), by name.
select 'agent', name, description, null from agent_types
union all select 'message', name, description, schema from message_types
union all select 'operation', name, description, artifacts from operation_types
union all select 'state', name, description, null from state_types
order by 1, 2;
