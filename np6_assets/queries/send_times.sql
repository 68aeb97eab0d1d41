-- Hit rate by weekday and hour of the send, over the newest 90 days.
-- In NP6_TIMEZONE; weekday 1 is Monday.
SELECT
    weekday,
    hour,
    denominator(hit_rate) AS delivered,
    rate(hit_rate) AS hit_rate,
    rate_low(hit_rate) AS low,
    rate_high(hit_rate) AS high,
    is_provisional(hit_rate) AS provisional
FROM send_hours
WHERE activation_date > (SELECT max(activation_date) FROM cohorts) - 90
GROUP BY weekday, hour
ORDER BY weekday, hour;
