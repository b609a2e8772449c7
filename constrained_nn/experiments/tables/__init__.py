"""The published tables: one family a room, one experiment a file."""

# name on the command line -> module here that defines it as EXPERIMENT; none is imported before it
# is asked for
EXPERIMENTS = {
    "coils-birotor": "coils.coils_birotor",
    "coils-cart-pole": "coils.coils_cart_pole",
    "coils-path-following": "coils.coils_path_following",
    "coils-pendulum": "coils.coils_pendulum",
    "coils-van-der-pol": "coils.coils_van_der_pol",
    "eco-kolmogorov": "eco.eco_kolmogorov",
    "eco-kolmogorov-full": "eco.eco_kolmogorov_full",
    "eco-ks": "eco.eco_ks",
    "eco-ks-deeponet": "eco.eco_ks_deeponet",
    "eco-lorenz63": "eco.eco_lorenz63",
    "learning-to-optimize": "hardnet.learning_to_optimize",
    "lmi-controller": "lmi.lmi_controller",
    "lmi-ellipsoid": "lmi.lmi_ellipsoid",
    "lmi-hover": "lmi.lmi_hover",
    "lmi-nonnormal": "lmi.lmi_nonnormal",
    "many-rows": "hardnet.many_rows",
    "mpc-obstacle": "hardnet_plus_plus.mpc_obstacle",
    "pfar": "adaptive.pfar",
    "piecewise": "hardnet.piecewise",
    "piecewise-box": "hardnet.piecewise_box",
    "piecewise-full": "hardnet.piecewise_full",
    "pvtol": "adaptive.pvtol",
    "safe-control": "hardnet.safe_control",
    "sd-lqr-birotor": "sd_lqr.sd_lqr_birotor",
    "sd-lqr-spacecraft": "sd_lqr.sd_lqr_spacecraft",
    "stable-n-link": "coils.stable_n_link",
}

__all__ = ["EXPERIMENTS"]
