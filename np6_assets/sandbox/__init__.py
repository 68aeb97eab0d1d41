"""The simulated NP6 account.

`population` invents who is sent what and how they react, `rendering` writes that as the API writes it, `app`
puts the API's HTTP interface before it, and `server` serves it on a loopback address.
"""
