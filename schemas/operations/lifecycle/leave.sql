-- A registered agent has ended, and so has its record; unless `bus run` (:traced) or somebody else ends it.
update agent_lifecycle set
  status = :status, unseen = 0, completed_at = max(:now, started_at), last_seen_at = :now, error_message = :error
where agent_id = :id and agent_id is not :traced
  and (status = 'running' or (status = 'killed' and unseen = 1 and started_at is not null));
