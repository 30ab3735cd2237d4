-- An agent ends. What it still had leased is given back by messages/give_back.sql in the same transaction. Whoever was
-- taken for dead lives again first (see the trigger agent_registry_revives): its own word counts.
insert into refusals
select 'unknown_agent' where not exists (select 1 from agent_registry where agent_id = :agent);

insert into refusals
select 'invalid_status' where :status not in ('completed', 'failed', 'terminated');

update agent_registry set last_heartbeat = :now where agent_id = :agent;

update agent_registry set status = :status, completion_time = coalesce(completion_time, :now), current_task = null
where agent_id = :agent;

select record from agent_records where agent_id = :agent;
