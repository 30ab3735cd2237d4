-- The latest checkpoint of each agent of a session.
select record from checkpoint_records
where sequence in (
  select (select max(rowid) from agent_checkpoints c where c.agent_id = r.agent_id)
  from agent_registry r where r.session_id = :session);
