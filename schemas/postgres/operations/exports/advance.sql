-- Differs: an array within an array is read by an operator of jsonb; else as in schemas/operations.
update trace_exports set message_id = :message_id, life_id = :life_id, exported = exported + :sent, updated_at = :now
where target = :target;

insert into trace_exports_pending (target, kind, id, delivery)
select :target, value ->> 0, (value ->> 1)::bigint, (value ->> 2)::bigint from jsonb_array_elements(:pending::jsonb)
on conflict (target, kind, id) do update set delivery = excluded.delivery;

delete from trace_exports_pending
where target = :target
  and (kind, id) in (select value ->> 0, (value ->> 1)::bigint from jsonb_array_elements(:done::jsonb));
