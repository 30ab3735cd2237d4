-- The agents that have not ended and were not heard of for :silence seconds; nothing is heard of them before the end of
-- the transaction, which must be one that writes.
/*postgres
select agent_id from agent_registry
where status not in ('completed', 'failed', 'terminated')
  and last_heartbeat < :now - :silence * interval '1 second'
order by agent_id for update;
*/
select record from agent_records
where status not in ('completed', 'failed', 'terminated')
  and last_heartbeat < strftime('%Y-%m-%d %H:%M:%f', :now, '-' || :silence || ' seconds')
order by agent_id;
