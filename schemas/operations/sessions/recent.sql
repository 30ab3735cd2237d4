-- How many of the sessions that were active within :age seconds there are in each status.
select status, count(*) from coordination_sessions
where last_activity >= strftime('%Y-%m-%d %H:%M:%f', :now, '-' || :age || ' seconds')
group by status;
