-- What was looked at is done: the cursor moves on, what had not ended becomes pending (:pending, a JSON array of [kind, id,
-- delivery]), and what has ended for good is pending no more (:done, of [kind, id]).
update trace_exports set message_id = :message_id, life_id = :life_id, exported = exported + :sent, updated_at = :now
where target = :target;

insert into trace_exports_pending (target, kind, id, delivery)
select :target, value ->> 0, cast(value ->> 1 as integer), cast(value ->> 2 as integer)
from json_each(:pending /*postgres ::jsonb */) where true
on conflict (target, kind, id) do update set delivery = excluded.delivery;

delete from trace_exports_pending
where target = :target
  and (kind, id) in (select value ->> 0, cast(value ->> 1 as integer) from json_each(:done /*postgres ::jsonb */));
