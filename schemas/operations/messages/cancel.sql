-- Withdraw a message that is not over: it is dead, and whoever holds it has lost the lease. Idempotent. One
-- that expired while nobody held it is over, though nobody has buried it yet.
/*postgres select id from agent_messages where id = :id for update; */
insert into refusals
select iif(count(*) = 0, 'unknown_message', 'already_ended') from agent_messages where id = :id
having count(*) = 0 or count(case when status = 'acknowledged' or dead_reason <> 'cancelled'
  or (status in ('scheduled', 'ready') and leased_by is null and expires_at <= :now) then 1 end) > 0;

update agent_messages set status = 'dead', dead_reason = 'cancelled', due_at = null
where id = :id and status <> 'dead'
returning id;
