-- Change what the registry knows of an agent: capabilities, resource usage, error, command (null leaves them).
insert into refusals
select 'unknown_agent' where not exists (select 1 from agent_registry where agent_id = :agent);

update agent_registry set last_heartbeat = :now where agent_id = :agent;

update agent_registry set
  capabilities = coalesce(:capabilities, capabilities), resource_usage = coalesce(:resource_usage, resource_usage),
  error_info = coalesce(:error_info, error_info), command = coalesce(:command, command)
where agent_id = :agent;

select record from agent_records where agent_id = :agent;
