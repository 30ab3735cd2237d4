-- The active sessions in which nothing happened for :silence seconds.
select record from session_records
where status = 'active' and last_activity < strftime('%Y-%m-%d %H:%M:%f', :now, '-' || :silence || ' seconds')
order by session_id;
