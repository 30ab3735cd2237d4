-- Made by bin/generate: the rows of agent_checkpoints from a key on, by their keys; see bus/copying.py.
select
  rowid,
  checkpoint_id,
  agent_id,
  session_id,
  checkpoint_type,
  parent_id,
  replace(strftime('%Y-%m-%d %H:%M:%f', created_at), ' ', 'T') || 'Z',
  replace(strftime('%Y-%m-%d %H:%M:%f', retention_until), ' ', 'T') || 'Z',
  file_references,
  state_snapshot
from agent_checkpoints
where rowid >= cast(:from_a as bigint)
order by rowid limit :limit;
