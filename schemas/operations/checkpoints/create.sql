-- Keep a snapshot of an agent's work, with references to the files it rests on; returns the record, but for the snapshot,
-- which may be long and which the caller has. Its parent is the agent's checkpoint before it. (PostgreSQL judges the form
-- of an id before any trigger can say that nobody has it.)
/*postgres
insert into refusals select 'unknown_agent' where not exists (select 1 from agent_registry where agent_id = :agent);
*/
insert into agent_checkpoints (agent_id, session_id, checkpoint_type, state_snapshot, file_references, created_at,
  retention_until, parent_id)
values (:agent, (select session_id from agent_registry where agent_id = :agent), :type, :snapshot, :files, :now,
  strftime('%Y-%m-%d %H:%M:%f', :now, '+' || :retention || ' seconds'),
  (select checkpoint_id from agent_checkpoints where agent_id = :agent order by rowid desc limit 1))
returning json_object(
  'checkpoint_id', checkpoint_id, 'agent_id', agent_id, 'session_id', session_id, 'checkpoint_type', checkpoint_type,
  'state_snapshot', null, 'file_references', json(file_references),
  'created_at', replace(created_at, ' ', 'T') || 'Z', 'retention_until', replace(retention_until, ' ', 'T') || 'Z',
  'parent_id', parent_id);

-- unless :beaten
update agent_registry set last_heartbeat = :now
where agent_id = :agent and last_heartbeat < strftime('%Y-%m-%d %H:%M:%f', :now, '-5 seconds');
