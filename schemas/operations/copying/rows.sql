-- How many rows a bus has, besides those it is made with.
select (select count(*) from milestones) + (select count(*) from agent_registry) + (select count(*) from agent_messages)
  + (select count(*) from agent_state) + (select count(*) from agent_checkpoints)
  + (select count(*) from agent_health_log) + (select count(*) from agent_lifecycle)
  + (select count(*) from coordination_sessions) + (select count(*) from trace_exports)
  + (select count(*) from trace_exports_pending);
