-- Made by bin/generate: puts a row into agent_checkpoints, as it was taken; see bus/copying.py.
insert into agent_checkpoints (rowid, checkpoint_id, agent_id, session_id, checkpoint_type, parent_id, created_at, retention_until, file_references, state_snapshot) /*postgres overriding system value */ values (
  cast(:rowid as bigint),
  :checkpoint_id,
  :agent_id,
  :session_id,
  :checkpoint_type,
  :parent_id,
  strftime('%Y-%m-%d %H:%M:%f', :created_at),
  strftime('%Y-%m-%d %H:%M:%f', :retention_until),
  :file_references,
  :state_snapshot);
