-- Forget a value; returns a row when there was one. The row stays, expired, until `prune`: so that the versions of a key
-- go on growing, and whoever still knows an old one can't take a new value for it.
update agent_state set state_value = '', expires_at = :now, updated_at = :now
where agent_id = :agent and state_key = :key and (expires_at is null or expires_at > :now)
returning 1;
