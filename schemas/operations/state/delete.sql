-- Forget a value; returns a row when there was one. The row stays, expired, until `prune`: so that the versions of a key
-- go on growing, and whoever still knows an old one can't take a new value for it. Its time is over at the beginning of
-- all time: a reader whose `now` is a moment older than this one, but who looks after it, must not see the empty value.
/*postgres select pg_advisory_xact_lock(hashtextextended(:agent || ' ' || :key, 66)); */
update agent_state set state_value = '', expires_at = '0001-01-01 00:00:00.000', updated_at = :now
where agent_id = :agent and state_key = :key and (expires_at is null or expires_at > :now)
returning 1;

-- unless :beaten
update agent_registry set last_heartbeat = :now
where agent_id = :agent and last_heartbeat < strftime('%Y-%m-%d %H:%M:%f', :now, '-5 seconds');
