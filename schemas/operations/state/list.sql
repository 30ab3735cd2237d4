-- The values of an agent, by key; only those whose key begins with :prefix, when given.
select record from state_records
where agent_id = :agent and (expires_at is null or expires_at > :now)
  and (:prefix is null or substr(state_key, 1, length(:prefix)) = :prefix)
order by state_key;
