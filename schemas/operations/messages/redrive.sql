-- Give dead messages another life, all or none: the ids of a JSON array, or (null) all of a session or of the bus.
-- The retry count starts anew, the delivery number goes on, an expiry that is past is lifted; returns id and address.
-- One that expired while nobody held it counts as dead, though nobody has buried it yet.
/*postgres
select id from agent_messages where id in (select cast(value as integer) from json_each(:ids)) order by id for update;
*/
insert into refusals
select iif(m.id is null, 'unknown_message', 'not_dead')
from json_each(:ids) i left join agent_messages m on m.id = cast(i.value as integer)
where m.id is null or not (m.status = 'dead'
  or (m.status in ('scheduled', 'ready') and m.leased_by is null and coalesce(m.expires_at <= :now, false)));

update agent_messages set status = 'ready', dead_reason = null, reason = null, retry_count = 0, leased_by = null,
  expires_at = iif(expires_at > :now, expires_at, null), due_at = iif(expires_at > :now, expires_at, null)
where id /*sqlite*/ in (/*end*/ /*postgres = any (array( */
    select id from agent_messages where :ids is null and status = 'dead'
    union all
    select id from agent_messages where :ids is null and due_at <= :now and expires_at <= :now
      and status in ('scheduled', 'ready') and leased_by is null
    union all select cast(value as integer) from json_each(:ids)) /*postgres ) */
  -- PostgreSQL looks again at a row that another changed meanwhile.
  and (:ids is not null or status = 'dead'
    or (due_at <= :now and expires_at <= :now and status in ('scheduled', 'ready') and leased_by is null))
  and (:session is null or session_id = :session)
returning id, to_agent;
