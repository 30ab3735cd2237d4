-- This process (:holder, JSON; null: nobody) exports to :target from now on.
insert into trace_exports (target, holder, updated_at) values (:target, :holder, :now)
on conflict (target) do update set holder = excluded.holder;
