-- Why sends bounced, over the newest 90 days.
-- A send counts once, with the reason of its worst bounce.
SELECT
    coalesce(nullif(bounce.verdict, ''), 'not given') AS verdict,
    coalesce(nullif(bounce.reason, ''), 'not given') AS reason,
    count(*) AS sends,
    count(*) / sum(count(*)) OVER () AS share
FROM sends
WHERE is_bounced AND activation_date > (SELECT max(activation_date) FROM cohorts) - 90
GROUP BY ALL
ORDER BY sends DESC, verdict, reason;
