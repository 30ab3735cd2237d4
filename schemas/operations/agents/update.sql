-- Change what the registry knows of an agent: capabilities, resource usage, error, command (null leaves them). Whoever was
-- taken for dead, by others, lives (see the trigger agent_registry_revives), whatever it has to tell.
insert into refusals
select 'unknown_agent' where not exists (select 1 from agent_registry where agent_id = :agent);

update agent_registry set
  last_heartbeat = :now, capabilities = coalesce(:capabilities, capabilities),
  resource_usage = coalesce(:resource_usage, resource_usage), error_info = coalesce(:error_info, error_info),
  command = coalesce(:command, command),
  status = case when status = 'failed' and error_info ->> 'by' is not null and coalesce(error_info ->> 'silent_since', error_info ->> 'recovery') is not null then 'active' else status end,
  completion_time = case when status = 'failed' and error_info ->> 'by' is not null and coalesce(error_info ->> 'silent_since', error_info ->> 'recovery') is not null then null else completion_time end
where agent_id = :agent;

select record from agent_records where agent_id = :agent;
